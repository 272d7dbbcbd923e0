"""Names to plugins: built-in ones by lazy target, outside ones by entry point.

Nothing is imported until a plugin is loaded, so listing names is cheap and a broken plugin breaks only itself.
"""

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

_GROUP_PREFIX = "skeleton_privacy_bench"


class UnknownPluginError(LookupError):
    """No plugin of that name; the message names those that are close."""


class AmbiguousPluginError(LookupError):
    """Two distributions provide the same name."""


class BrokenPluginError(ImportError):
    """A plugin is registered but its target cannot be imported."""


@dataclass(frozen=True)
class Plugin:
    """Where a plugin lives. Nothing is imported until `load`.

    Args:
        kind: What it is, for messages: "anonymizer", "attacker", "backbone" or "data set".
        name: Name that users write, lower-case with hyphens.
        target: "package.module:attribute".
        provider: "builtin", or name and version of the distribution that brings it. Written into every record.
    """

    kind: str
    name: str
    target: str
    provider: str

    def load(self) -> Any:
        """Imports and returns the plugin.

        Raises:
            BrokenPluginError: if the module or the attribute cannot be imported.
        """
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever a foreign module raises: it must not take the others with it
            raise BrokenPluginError(
                f"{self.kind} {self.name!r} ({self.provider}) cannot be loaded from {self.target}: {error}"
            ) from error


class Registry:
    """Plugins of one kind. Built-in names are reserved; the rest come from entry points.

    Args:
        kind: What the plugins are, for messages.
        group: Entry-point group under the distribution's prefix, e.g. "anonymizers".
        builtin: Name to "module:attribute" of the built-in plugins.
        chain: Name of the plugin that applies several of them one after the other; "" if that cannot be done.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str], chain: str = ""):
        self.kind = kind
        self.chain = chain
        self.group = f"{_GROUP_PREFIX}.{group}"
        self._builtin = {name: Plugin(kind, name, target, "builtin") for name, target in builtin.items()}

    def plugins(self) -> list[Plugin]:
        """All plugins: the built-in ones in their declared order, then those of other distributions by name."""
        outside = [
            Plugin(self.kind, point.name, point.value, f"{point.dist.name} {point.dist.version}" if point.dist else "unknown")
            for point in entry_points(group=self.group)
            if point.name not in self._builtin
        ]
        return [*self._builtin.values(), *sorted(outside, key=lambda plugin: (plugin.name, plugin.provider))]

    def names(self) -> list[str]:
        return [plugin.name for plugin in self.plugins()]

    def __getitem__(self, name: str) -> Plugin:
        """The plugin of that name.

        Raises:
            UnknownPluginError: if there is none.
            AmbiguousPluginError: if several distributions provide it.
        """
        if name in self._builtin:  # nobody else may take it, so the installed distributions need not be searched
            return self._builtin[name]
        plugins = self.plugins()
        hits = [plugin for plugin in plugins if plugin.name == name]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise AmbiguousPluginError(
                f"{self.kind} {name!r} is provided by {' and by '.join(plugin.provider for plugin in hits)}; uninstall one"
            )
        names = [plugin.name for plugin in plugins]
        close = difflib.get_close_matches(name, names)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
        raise UnknownPluginError(f"no {self.kind} named {name!r}; {hint}")


ANONYMIZERS = Registry(
    "anonymizer",
    "anonymizers",
    {
        "identity": "anonymizers.controls:Identity",
        "null": "anonymizers.controls:Null",
        "label-oracle": "anonymizers.controls:LabelOracle",
        "gauss": "anonymizers.noise:GaussianNoise",
        "gauss-static": "anonymizers.noise:StaticGaussianNoise",
        "laplace-dp": "anonymizers.noise:LaplaceDP",
        "param-dp": "anonymizers.retargeting:ParameterDP",
        "quantise-bones": "anonymizers.retargeting:QuantiseBones",
        "mean-skeleton": "anonymizers.retargeting:MeanSkeleton",
        "smooth": "anonymizers.temporal:Smooth",
        "downsample": "anonymizers.temporal:Downsample",
        "resample": "anonymizers.temporal:Resample",
        "remove-variation": "anonymizers.temporal:RemoveVariation",
        "remove-trajectory": "anonymizers.temporal:RemoveTrajectory",
        "motion-only": "anonymizers.temporal:MotionOnly",
        "static-pose": "anonymizers.temporal:StaticPose",
        "coarsen-macro": "anonymizers.spatial:CoarsenMacro",
        "coarsen-micro": "anonymizers.spatial:CoarsenMicro",
        "drop-part": "anonymizers.spatial:DropPart",
        "keep-part": "anonymizers.spatial:KeepPart",
        "normalise": "anonymizers.spatial:Normalise",
        "amp-equalise": "anonymizers.gait:AmplitudeEqualise",
        "freq-equalise": "anonymizers.gait:FrequencyEqualise",
        "explain-mask": "anonymizers.masking:ExplainMask",
        "adversarial": "anonymizers.adversarial:Adversarial",
        "dmr": "anonymizers.deep_retargeting:DMR",
        "pmr": "anonymizers.deep_retargeting:PMR",
        "blend": "anonymizers.wrappers:Blend",
        "calibrated": "anonymizers.wrappers:Calibrated",
        "chain": "anonymizers.wrappers:Chain",
    },
    chain="chain",
)
ATTACKERS = Registry(
    "attacker",
    "attackers",
    {
        "shiftgcn-reid": "attackers.neural:ShiftGCNReID",
        "shiftgcn-gender": "attackers.neural:ShiftGCNGender",
        "msg3d-reid": "attackers.neural:MSG3DReID",
        "msg3d-gender": "attackers.neural:MSG3DGender",
        "2sagcn-reid": "attackers.neural:TwoStreamAGCNReID",
        "2sagcn-gender": "attackers.neural:TwoStreamAGCNGender",
        "sgn-reid": "attackers.neural:SGNReID",
        "sgn-gender": "attackers.neural:SGNGender",
        "verify-shiftgcn": "attackers.verification:ShiftGCNVerifier",
        "verify-msg3d": "attackers.verification:MSG3DVerifier",
        "verify-2sagcn": "attackers.verification:AGCNVerifier",
        "verify-sgn": "attackers.verification:SGNVerifier",
        "lan-linkage": "attackers.linkage:LinkageNetwork",
        "bones-lda": "attackers.shallow:BonesLDA",
        "bones-knn": "attackers.shallow:BonesKNN",
        "flat-svm": "attackers.shallow:FlatSVM",
        "stats-rf": "attackers.shallow:StatsRF",
        "gait-dyn": "attackers.shallow:GaitDyn",
        "nuisance": "attackers.shallow:Nuisance",
        "nuisance-linkage": "attackers.recording:NuisanceLinkage",
        "shuffled-labels": "attackers.shallow:ShuffledLabels",
    },
)
BACKBONES = Registry(
    "backbone",
    "backbones",
    {
        "shift-gcn": "attackers.backbones.shift_gcn:ShiftGCN",
        "ms-g3d": "attackers.backbones.ms_g3d:MSG3D",
        "2s-agcn": "attackers.backbones.agcn:AdaptiveGCN",
        "aagcn": "attackers.backbones.aagcn:AttentionGCN",
        "st-gcn": "attackers.backbones.st_gcn:SpatialTemporalGCN",
        "sgn": "attackers.backbones.sgn:SGN",
    },
)
INVERTERS = Registry("inverter", "inverters", {"temporal": "attackers.inversion:TemporalInverter"})
DATASETS = Registry(
    "data set",
    "datasets",
    {
        "synthetic": "bench.data.synthetic:Synthetic",
        "utd-mhad": "bench.data.utd_mhad:UTDMHAD",
        "msr-action3d": "bench.data.msr_action3d:MSRAction3D",
        "utkinect": "bench.data.utkinect:UTKinect",
        "ui-prmd": "bench.data.ui_prmd:UIPRMD",
        "msrc-12": "bench.data.msrc12:MSRC12",
        "kinder-gator": "bench.data.kinder_gator:KinderGator",
        "ucalgary-gait": "bench.data.ucalgary:UCalgaryGait",
        "nw-ucla": "bench.data.nw_ucla:NWUCLA",
        "etri": "bench.data.etri:ETRIActivity3D",
        "own": "bench.data.own:OwnData",
        "ntu60": "bench.data.ntu:NTU60",
        "ntu120": "bench.data.ntu:NTU120",
    },
)
