"""Trains the starter's tokenizer: `python -m examples.starter.tokenizer`.

A lower-casing byte-level BPE over the emoji captions: CLIP's own vocabulary of 49,408 tokens would be twice the size of
the rest of the model. `<pad>` is 0 and `<eos>` is the highest id, so CLIP's pooling at the argmax of the ids finds the
end of the text. Building twice gives the same files.
"""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from attune.models.source import STARTER
from examples.emoji.data import load

VOCABULARY = 4096
CONTEXT_LENGTH = 24
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"


def build(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of `VOCABULARY` ids that covers any text, through bytes where it knows no longer token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,  # leaves the highest id for <eos>
        special_tokens=[PAD, BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([EOS])
    special = [(name, tokenizer.token_to_id(name)) for name in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, model_max_length=CONTEXT_LENGTH
    )


if __name__ == "__main__":
    captions = [text for style in ("twemoji", "openmoji", "noto") for example in load(style) for text in example.captions]
    build(captions).save_pretrained(str(STARTER))
