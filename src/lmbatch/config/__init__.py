"""Configuration: YAML in, frozen and checked values out.

::

    file.yaml ──extends──▶ parent.yaml          --set a.b=v
         └──────── load.read_layers ────────────────┘
                          │  one plain mapping
                          ▼
            schema (pydantic, unknown keys refused)  ──▶ PreprocessConfig · TokenizerConfig · TrainConfig · SiteConfig
                          │                                        │
             reference (the written page)                 fingerprint (what decides the bytes)

Everything may import this package; it imports only ``errors``.
"""

from lmbatch.config.chunking import ChunkingConfig, ChunkingMode
from lmbatch.config.cleaning import CleaningConfig, CleaningRules
from lmbatch.config.compute import ComputeConfig
from lmbatch.config.container import ContainerSite
from lmbatch.config.dedup import DedupConfig, NearConfig
from lmbatch.config.engine import EngineConfig
from lmbatch.config.fingerprint import differences, fingerprint, identity
from lmbatch.config.guards import GuardsConfig
from lmbatch.config.load import dump_yaml, load_config
from lmbatch.config.objective import ObjectiveConfig
from lmbatch.config.preprocess import (
    BudgetConfig,
    CorpusConfig,
    PreprocessConfig,
    ReportConfig,
    ShardsConfig,
    SplitConfig,
    TasksConfig,
    TokenizerRef,
)
from lmbatch.config.serve import ServeConfig
from lmbatch.config.site import SiteConfig, SlurmSite, TrainSite
from lmbatch.config.tokenizer import TokenizerConfig
from lmbatch.config.tracking import SwanlabConfig, TrackingConfig, WandbConfig
from lmbatch.config.train import (
    BatchConfig,
    CacheConfig,
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SamplesConfig,
    SaveConfig,
    ScheduleConfig,
    TrainConfig,
)

__all__ = [
    "BatchConfig",
    "BudgetConfig",
    "CacheConfig",
    "ChunkingConfig",
    "ChunkingMode",
    "CleaningConfig",
    "CleaningRules",
    "ComputeConfig",
    "ContainerSite",
    "CorpusConfig",
    "DataConfig",
    "DedupConfig",
    "EngineConfig",
    "EvaluateConfig",
    "GenerateConfig",
    "GuardsConfig",
    "ModelConfig",
    "NearConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PreprocessConfig",
    "ReportConfig",
    "RunConfig",
    "SamplesConfig",
    "SaveConfig",
    "ScheduleConfig",
    "ServeConfig",
    "ShardsConfig",
    "SiteConfig",
    "SlurmSite",
    "SplitConfig",
    "SwanlabConfig",
    "TasksConfig",
    "TokenizerConfig",
    "TokenizerRef",
    "TrackingConfig",
    "TrainConfig",
    "TrainSite",
    "WandbConfig",
    "differences",
    "dump_yaml",
    "fingerprint",
    "identity",
    "load_config",
]
