"""Runs ``mim`` as a user does: from an unrelated folder, against the installed wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SHORT = [
    '--cfg-options',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.logger.interval=1',
    'train_dataloader.batch_size=4',
]


class Mim:
    """Runs mim in ``folder`` with the installed wheel first on the path."""

    def __init__(self, folder, site, data_set, host, config):
        self.folder = folder
        self.host = host
        self.config = site / 'mmloss_plugins' / '.mim' / 'configs' / config
        self.log = folder / 'mim.log'
        data = str(data_set.parent)
        self.env = {**os.environ, 'PYTHONPATH': str(site), 'MMLOSS_DATA': data}

    def start(self, *arguments):
        # To a file: nobody empties a pipe while the run goes on, and a full one stops it.
        with self.log.open('w') as log:
            return subprocess.Popen(
                [sys.executable, '-W', 'ignore', '-m', 'mim', *map(str, arguments)],
                cwd=self.folder,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, *arguments):
        code = self.start(*arguments).wait(timeout=300)
        return code, self.log.read_text()

    def train(self, iterations, *more):
        options = [*SHORT, f'train_cfg.max_iters={iterations}', *more]
        return ['train', self.host, self.config, '--work-dir', self.folder / 'run', *options]

    def scalars(self):
        files = sorted((self.folder / 'run').glob('*/vis_data/scalars.json'))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]
