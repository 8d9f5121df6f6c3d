"""The options that are taken from a checkpoint's configuration: those that belong to its model, and no others.

A checkpoint may come from a stranger, and fairseq does what its configuration says: it evaluates some options, resolves
``${oc.env:...}``, and reads and writes the files that options name. So only the options that are listed here are taken
and checked, like options on the command line. Every other option has fairseq's default or its command-line value.
"""

from __future__ import annotations

import argparse
import re
import reprlib
import unicodedata
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.utils import _set_legacy_defaults
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import OmegaConf, ValidationError

from ..common.literals import NoLiteral, literal
from ..common.options import flag

# --- the list

# Of the options that an arch declares, these are taken: numbers, switches, declared choices, and the options below,
# whose values are a word or text that fairseq would evaluate. All other options name files.
_MODEL_TEXTS = frozenset({
    "activation_fn", "adaptive_input_cutoff", "adaptive_softmax_cutoff", "attention", "bridge", "cell",
    "character_filters", "decoder_attention", "decoder_conv_type", "decoder_glu", "decoder_kernel_size_list",
    "decoder_layers", "decoder_layers_to_keep", "decoder_output_dim", "downsample", "early_exit", "encoder_attention",
    "encoder_conv_type", "encoder_glu", "encoder_kernel_size_list", "encoder_layers", "encoder_layers_to_keep",
    "gated_attention", "init_scheme", "pooler_activation_fn", "pretrained", "project_input", "readout",
    "self_attention", "weight_softmax",
})  # fmt: skip
# Options that archs read without declaring them.
MODEL_UNDECLARED = frozenset({
    "add_bos_token", "decoder_final_norm", "max_source_positions", "max_target_positions", "no_tie_adaptive_proj",
    "tokens_per_sample",
})  # fmt: skip
# Word vectors are not read again: the checkpoint has the weights. fairseq's LSTM needs the file of frozen vectors.
_MODEL_NOT = frozenset({"encoder_freeze_embed", "decoder_freeze_embed"})
# section → kind of value → options
_TAKEN: dict[str, dict[str, tuple[str, ...]]] = {
    "task": {
        # translation, then language models
        "word": ("source_lang", "target_lang", "sample_break_mode"),
        "number": (
            "left_pad_source", "left_pad_target", "max_source_positions", "max_target_positions", "truncate_source",
            "upsample_primary", "required_seq_len_multiple", "load_alignments",
            "tokens_per_sample", "output_dictionary_size", "self_target", "future_target", "past_target",
            "add_bos_token",
        ),
        # Paths that a run recorded are only read, never created or written. Their files (dictionaries, to compare or
        # to use, and language models) are checked like any other file.
        "place": ("data", "src_lm", "tgt_lm"),
    },
    # so that fairseq-validate measures like the run
    "criterion": {
        "number": (
            "label_smoothing", "sentence_avg", "ignore_prefix_size", "report_accuracy", "alignment_lambda",
            "dual_lambda", "dual_lambda_reverse", "dual_start_update", "dual_ramp_updates", "dual_gap_clip",
        )
    },
    # the report finds the other paths from this one, if all of them moved together
    "checkpoint": {"place": ("save_dir",)},
}  # fmt: skip

_WORD = re.compile(r"\w[\w-]{0,63}")
_LONGEST_LIST = 1_000
_LONGEST_PLACE = 4_096


class RefusedOption(ValueError):
    """An option in a checkpoint has an impossible value; the message names the option."""


def take_options(state: dict[str, Any]) -> dict[str, Any]:
    """Keep only the listed options of a checkpoint.

    Args:
        state: the unpickled checkpoint; its options are in ``cfg``, or in ``args`` (older fairseq, or ``export``).

    Returns:
        The checkpoint with options only in ``cfg``, as fairseq composes them, without interpolations.

    Raises:
        RefusedOption: a listed option has an impossible value, or this fairseq does not have the arch.
    """
    old, legacy_model = state.get("args"), True
    if old is not None:
        options = _mapping(old, "args")
        if isinstance(options.get("data"), list) and options["data"]:  # as fairseq reads its oldest checkpoints
            options["data"] = options["data"][0]
        if "max_positions" in options:
            for side in ("max_source_positions", "max_target_positions"):
                options.setdefault(side, options["max_positions"])
        sections = dict.fromkeys(("model", "task", "criterion", "checkpoint"), options)
        names = {"model": options.get("arch"), "task": options.get("task", "translation")}
        names["criterion"] = options.get("criterion")
    elif state.get("cfg") is not None:
        cfg = _mapping(state["cfg"], "cfg")
        sections = {name: _mapping(cfg.get(name) or {}, name) for name in ("model", "task", "criterion", "checkpoint")}
        legacy_model = isinstance(cfg.get("model"), Namespace)
        names = {
            section: sections[section].get("_name") or sections[section].get(option)
            for section, option in (("model", "arch"), ("task", "task"), ("criterion", "criterion"))
        }
    else:
        return state

    cfg = OmegaConf.structured(FairseqConfig)
    cfg.task = _defaults(names["task"], "task", TASK_DATACLASS_REGISTRY)
    cfg.criterion = _defaults(names["criterion"], "criterion", CRITERION_DATACLASS_REGISTRY)
    result: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    for section, kinds in _TAKEN.items():
        node, stored = result[section] or {}, sections[section]
        for kind, listed in kinds.items():
            taken = {name: _CHECKS[kind](name, stored[name]) for name in listed if name in node and name in stored}
            _check_types(cfg[section], taken)
            node.update(taken)
    result["model"] = model_options(names["model"], sections["model"])
    if legacy_model:
        result["model"] = Namespace(
            **result["model"],
            arch=names["model"],
            task=_word("task", names["task"]),  # BART reads it
            criterion=_word("criterion", names["criterion"]),
        )
        _set_legacy_defaults(result["model"], ARCH_MODEL_REGISTRY[names["model"]])
    task_state = _mapping(state.get("task_state") or {}, "task_state")
    if "source_lang" in task_state:
        _word("source_lang", task_state["source_lang"])
    for name in ("src_lm", "tgt_lm"):
        _place(name, task_state.get(name))
    for language, digest in _mapping(task_state.get("dictionaries") or {}, "dictionaries").items():
        _word("dictionaries", language), _word("dictionaries", digest)
    cfg = OmegaConf.create(result, flags={"allow_objects": True})
    return {**state, "args": None, "cfg": cfg, "task_state": task_state}


def taken_options(cfg: Any) -> dict[str, Any]:
    """The inverse of :func:`take_options`: the taken options by name, in the form of ``args``.

    Args:
        cfg: the configuration in its result.
    """
    model = dict(cfg.model if OmegaConf.is_config(cfg.model) else vars(cfg.model))
    names = {"arch": model.pop("_name"), "task": _name_of(cfg.task), "criterion": _name_of(cfg.criterion)}
    sections = [cfg[section] or {} for section in _TAKEN]
    listed = [name for kinds in _TAKEN.values() for known in kinds.values() for name in known]
    others = {name: section[name] for section in sections for name in listed if name in section}
    return {**others, **model, **names}


def _name_of(options: Any) -> str | None:
    return None if options is None else options._name


def declared_options(arch: str) -> dict[str, argparse.Action]:
    """The options that an arch declares, by name.

    Raises:
        KeyError: this fairseq does not know the arch.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    ARCH_MODEL_REGISTRY[arch].add_args(parser)
    return {action.dest: action for action in parser._actions}


def model_options(arch: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options in ``given`` that are taken for an arch, in built-in types, and its name as ``_name``.

    Raises:
        RefusedOption: as in :func:`take_options`.
    """
    if not isinstance(arch, str) or arch not in ARCH_MODEL_REGISTRY:
        raise RefusedOption(f"--arch {_shown(arch)}: is not an arch of this fairseq (is its --user-dir missing?)")
    options: dict[str, Any] = {name: _number(name, given[name]) for name in MODEL_UNDECLARED & given.keys()}
    for name, action in declared_options(arch).items():
        if name not in given:
            continue
        if name in _MODEL_TEXTS:
            options[name] = _text(name, given[name], action.choices)
        elif action.nargs == 0:  # a switch
            options[name] = name not in _MODEL_NOT and _number(name, given[name])
        elif action.type in (int, float) or not isinstance(given[name], str):
            options[name] = _number(name, given[name])
        else:
            options[name] = given[name] if given[name] in (action.choices or ()) else None
    return {**options, "_name": arch}


def _defaults(name: Any, section: str, registry: Mapping[str, type]) -> Any:
    """The default options of a task or a criterion; only its name if it declares no options."""
    name = _word(section, name)
    if name is None:
        return None
    options = OmegaConf.structured(registry[name]) if name in registry else OmegaConf.create({"_name": None})
    options._name = name
    return options


# --- values


def _check_types(record: Any, values: Mapping[str, Any]) -> None:
    """Raises RefusedOption if a value does not have the declared type, for example 0.5 for a switch."""
    if not values:  # a task that declares nothing has no record
        return
    try:
        OmegaConf.merge(record, values)
    except ValidationError as error:
        name = str(error.key)
        raise RefusedOption(f"{flag(name)} {_shown(values[name])}: {str(error).splitlines()[0]}") from error


def _number(name: str, value: Any) -> Any:
    """None, a number, a switch, or a list of these. fairseq itself computes even with -1 heads."""
    if name.endswith(("attention_heads", "_positions")) and isinstance(value, int) and value < 1:
        raise RefusedOption(f"{flag(name)} {value}: is not a number above 0")
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, list | tuple) and len(value) <= _LONGEST_LIST:
        items = [item for item in value if type(item) in (bool, int, float)]
        if len(items) == len(value):
            return items
    raise RefusedOption(f"{flag(name)} {_shown(value)}: is not a number")


def _single(name: str, value: Any) -> Any:
    """None, a number or a switch, for an option of a task or a criterion."""
    if isinstance(value, list | tuple):
        raise RefusedOption(f"{flag(name)} {_shown(value)}: is a list")
    return _number(name, value)


def _word(name: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and _WORD.fullmatch(value)):
        return value
    raise RefusedOption(f"{flag(name)} {_shown(value)}: is not a word")


def _text(name: str, value: Any, choices: Iterable[Any] | None) -> Any:
    """A word, or text that fairseq evaluates, or its evaluated form."""
    if not isinstance(value, str):
        return _number(name, value)
    if choices is not None and value not in map(str, choices):
        raise RefusedOption(f"{flag(name)} {_shown(value)}: is not one of {', '.join(map(str, choices))}")
    if not _WORD.fullmatch(value):
        try:
            if "${" in value:  # the configuration would resolve it
                raise NoLiteral("is not a plain value")
            literal(value)
        except NoLiteral as error:
            raise RefusedOption(f"{flag(name)} {_shown(value)}: {error}") from error
    return value


def _place(name: str, value: Any) -> str | None:
    """The name of a file or folder. fairseq resolves ``${`` before it saves a name."""
    if value is None:
        return None
    if isinstance(value, str) and "${" not in value and len(value) <= _LONGEST_PLACE:
        odd = [character for character in value if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")]
        if not odd:
            return value
    raise RefusedOption(f"{flag(name)} {_shown(value)}: is not a file name")


_CHECKS: dict[str, Callable[[str, Any], Any]] = {"number": _single, "word": _word, "place": _place}


def _mapping(options: Any, name: str) -> dict[str, Any]:
    """Options by name, from a dictionary, a Namespace, or the form that ``export`` writes for a Namespace."""
    if not isinstance(options, dict | Namespace):
        raise RefusedOption(f"{name}: is a {type(options).__name__}, and no options")
    by_name = {**(options if isinstance(options, dict) else {}), **getattr(options, "__dict__", {})}
    if not all(isinstance(key, str) for key in by_name):
        raise RefusedOption(f"{name}: has options without a name")
    return by_name


def _shown(value: Any) -> str:
    # if lists hold each other many times over, the full text would never end
    text = value if isinstance(value, str) and value.isprintable() else ascii(reprlib.repr(value))[1:-1]
    return text if len(text) <= 60 else text[:57] + "..."
