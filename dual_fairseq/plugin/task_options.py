"""The options that ``--task dual_translation`` adds to fairseq's ``translation``."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.tasks.translation import TranslationConfig
from omegaconf import II


@dataclass
class DualTranslationConfig(TranslationConfig):
    src_lm: Optional[str] = field(
        default=None, metadata={"help": "fairseq language model of the source language (frozen)"}
    )
    tgt_lm: Optional[str] = field(
        default=None, metadata={"help": "fairseq language model of the target language (frozen)"}
    )
    init_src2tgt: Optional[str] = field(
        default=None, metadata={"help": "plain fairseq translation checkpoint to start source→target from"}
    )
    init_tgt2src: Optional[str] = field(
        default=None, metadata={"help": "plain fairseq translation checkpoint to start target→source from"}
    )
    src_embed_path: Optional[str] = field(
        default=None,
        metadata={"help": "word vectors of the source language (text: word2vec, fastText, GloVe), for both directions"},
    )
    tgt_embed_path: Optional[str] = field(
        default=None, metadata={"help": "word vectors of the target language, for both directions"}
    )
    sacrebleu_tokenize: Optional[str] = field(
        default=None,
        metadata={"help": "sacreBLEU's tokenizer of --eval-bleu (default: that of each direction's target language)"},
    )
    eval_bleu_by_language: Optional[str] = field(
        default=None,
        metadata={
            "help": "options of --eval-bleu for translations into one language, instead of those for both, as JSON: "
            '{"ja": {"eval_bleu_remove_bpe": "sentencepiece", "eval_bleu_detok": "space"}}'
        },
    )
    lm_score_cache: Optional[str] = field(
        default=None,
        metadata={"help": "directory that keeps the language models' scores of every sentence, computed once"},
    )
    dual_inference_alpha: Optional[float] = field(
        default=None,
        metadata={
            "help": "re-score translations: α log P(y|x) + (1 − α) [log P(x|y) + log P(y) − log P(x)]; 1 is plain"
        },
    )
    dual_inference_reverse_weight: Optional[float] = field(
        default=None, metadata={"help": "re-score translations by log P(y|x) + this · log P(x|y) + ..."}
    )
    dual_inference_lm_weight: Optional[float] = field(
        default=None, metadata={"help": "re-score translations by log P(y|x) + this · log P(y) + ..."}
    )
    dual_inference_length_weight: Optional[float] = field(
        default=None, metadata={"help": "re-score translations by log P(y|x) + this · length of y in tokens + ..."}
    )
    cpu: bool = II("common.cpu")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    results_path: Optional[str] = II("common_eval.results_path")
    gen_subset: str = II("dataset.gen_subset")
    path: Optional[str] = II("common_eval.path")
    quiet: bool = II("common_eval.quiet")
