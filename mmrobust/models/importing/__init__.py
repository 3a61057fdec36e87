"""Import of checkpoints that were written by the papers' own code.

``convert`` does the whole: ``reference_file`` reads the file, one module per kind (``mmp``, ``dcp``, ``dpl``,
``cavmae``) maps the tensors, each a pure function of a state dict, and ``encoder`` builds the backbone.
"""

from __future__ import annotations

KINDS = {
    "mmp": "mmrobust.models.importing.mmp:from_mmp",
    "dcp": "mmrobust.models.importing.dcp:from_dcp",
    "dpl": "mmrobust.models.importing.dpl:from_dpl",
    "cav-mae": "mmrobust.models.importing.cavmae:from_cavmae",
}
"""Kind of checkpoint → ``module:function`` that maps (state dict, settings, head) to ``MappedCheckpoint``.

The names of the state dict may begin with ``module.``; the settings are the paper's own configuration. The function
raises a ``CheckpointError`` that names a weight that is missing or unknown, or a setting that is needed or out of
range, and a ``UsageError`` for a head that is unknown or not to be chosen.
"""
