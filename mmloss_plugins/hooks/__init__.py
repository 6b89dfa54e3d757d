"""MMEngine hooks: checks before a run, diagnostics during it."""

from mmloss_plugins.hooks.diagnostics import LossDiagnosticsHook
from mmloss_plugins.hooks.require_data import RequireDataHook

__all__ = ['LossDiagnosticsHook', 'RequireDataHook']
