"""Face annotations on the figures, so that configs of face data sets can take a step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

LANDMARKS = {'WFLWDataset': 98, 'Face300WDataset': 68}


def annotate_faces(figures: Path, split: str, dataset: str) -> str:
    """Write random landmarks for the pictures of a split; return the file, as configs name it."""
    source = json.loads((figures / f'annotations/figures_{split}.json').read_text())
    count = LANDMARKS[dataset]
    random = np.random.default_rng(0)
    annotations = []
    for image in source['images']:
        size = np.array([image['width'], image['height']])
        points = np.column_stack([(0.2 + 0.6 * random.random((count, 2))) * size, np.ones(count)])
        annotations.append(
            dict(
                id=image['id'],
                image_id=image['id'],
                category_id=1,
                bbox=[0, 0, *size.tolist()],
                area=int(size.prod()),
                iscrowd=0,
                num_keypoints=count,
                keypoints=points.ravel().tolist(),
                center=(size / 2).tolist(),
                scale=size.max() / 200,
            )
        )
    names = [f'{number}' for number in range(count)]
    category = dict(id=1, name='face', supercategory='', keypoints=names, skeleton=[])
    content = dict(images=source['images'], annotations=annotations, categories=[category])
    name = f'annotations/{dataset}_{split}.json'
    (figures / name).write_text(json.dumps(content))
    return name
