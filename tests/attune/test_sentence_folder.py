"""Folders of text encoders: read as data that anyone may have written, and written as sentence-transformers reads them."""

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attune.errors import ModelError
from attune.models.clip import load_clip, load_folder
from attune.models.sentence_folder import read_sentence_folder
from attune.models.source import ModelSource, find_model
from attune.models.weights import DTYPES
from attune.settings import ModelOptions
from tests.attune.sentences import save_plain, save_sentence, write, write_modules

TEXTS = ["where is alpha north?", "red dog", "a", "[PAD] bear, all [PAD]", "yellow wolf " * 30]
DENSE = {"in_features": 32, "out_features": 16, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence(tmp_path_factory.mktemp("folder") / "bert", dense=DENSE)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_names_of_folders(folder: Path, tmp_path: Path) -> None:
    plain = save_plain(tmp_path / "plain")
    for path in (folder, plain):
        assert find_model(str(path)) == ModelSource(folder=path, library="sentence_transformers")
        assert find_model(f"{path}#scratch") == ModelSource(folder=path, scratch=True, library="sentence_transformers")
        assert find_model(str(path)).towers == ("text",)
    with pytest.raises(ModelError, match="a folder holds its own weights"):
        find_model(f"{folder}#openai")
    with pytest.raises(ModelError, match=r"has no open_clip_config\.json, mlp_config\.json, modules\.json or config\.json"):
        find_model(str(tmp_path))


@pytest.mark.parametrize(
    ("pooling", "pooler"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "gem"}, "gem"),
    ],
)
def test_pools_are_read_as_each_version_writes_them(copy: Path, pooling: dict[str, Any], pooler: str) -> None:
    write(copy / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **pooling})
    assert read_sentence_folder(copy).config["pooler"] == pooler


def test_the_parts_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    save_plain(tmp_path / "0_Transformer")
    write(tmp_path / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    write_modules(tmp_path, {"0_Transformer": "Transformer", "1_Pooling": "Pooling"})

    found = load_clip(str(tmp_path)).encode_texts(TEXTS)

    np.testing.assert_allclose(found, load_clip(str(tmp_path / "0_Transformer")).encode_texts(TEXTS), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"pooler": "gem"}, {"output_dim": 8, "context_length": 12, "pooler": "max"}])
def test_a_saved_folder_is_the_same_model(folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    clip = load_clip(str(folder), options=ModelOptions(**options))
    clip.model.logit_scale.data.fill_(math.log(37.0))
    clip.matryoshka_dims = (4,)

    clip.save_folder(tmp_path / "saved")
    again = load_folder(tmp_path / "saved")

    assert np.array_equal(again.encode_texts(TEXTS), clip.encode_texts(TEXTS))
    assert torch.equal(again.model.logit_scale, clip.model.logit_scale)
    assert (again.config, again.matryoshka_dims) == (clip.config, (4,))
    again.save_folder(tmp_path / "twice")
    for path in (path for path in (tmp_path / "saved").rglob("*") if path.is_file()):
        assert (tmp_path / "twice" / path.relative_to(tmp_path / "saved")).read_bytes() == path.read_bytes(), path


def test_a_folder_in_fp16_is_half_the_size_and_nearly_the_same(folder: Path, tmp_path: Path) -> None:
    clip = load_clip(str(folder))

    clip.save_folder(tmp_path / "half", DTYPES["fp16"])
    again = load_folder(tmp_path / "half")

    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "half")]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.1)
    assert next(again.model.parameters()).dtype == torch.float32
    np.testing.assert_allclose(again.encode_texts(TEXTS), clip.encode_texts(TEXTS), atol=5e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options", [{}, {"pooler": "cls"}, {"pooler": "max"}, {"pooler": "last"}, {"output_dim": 8, "context_length": 12}]
)
def test_sentence_transformers_opens_it_with_equal_embeddings(
    folder: Path, tmp_path: Path, options: dict[str, Any], dtype: str
) -> None:
    library = pytest.importorskip("sentence_transformers")
    load_clip(str(folder), options=ModelOptions(**options)).save_folder(tmp_path / "saved", DTYPES[dtype])

    theirs = library.SentenceTransformer(str(tmp_path / "saved"), device="cpu")

    ours = load_folder(tmp_path / "saved").encode_texts(TEXTS)
    np.testing.assert_allclose(theirs.encode(TEXTS), ours, atol=1e-6)
    assert theirs.max_seq_length == options.get("context_length", 32)


def test_what_sentence_transformers_writes_is_read_with_equal_embeddings(folder: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    theirs.max_seq_length = 12
    theirs.save(str(tmp_path / "saved"))

    ours = load_clip(str(tmp_path / "saved"))

    assert ours.config["context_length"] == 12
    np.testing.assert_allclose(ours.encode_texts(TEXTS), theirs.encode(TEXTS), atol=1e-6)


def test_sentence_transformers_refuses_a_pool_that_it_does_not_have(folder: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    load_clip(str(folder), options=ModelOptions(pooler="gem")).save_folder(tmp_path / "saved")
    with pytest.raises(ValueError, match="Invalid pooling mode: 'gem'"):
        library.SentenceTransformer(str(tmp_path / "saved"), device="cpu")


def changed(path: str, **values: Any) -> Callable[[Path], None]:
    """Changes entries of a JSON file."""

    def change(folder: Path) -> None:
        write(folder / path, {**json.loads((folder / path).read_text()), **values})

    return change


def modules(*parts: tuple[str, str]) -> Callable[[Path], None]:
    """Other parts, by path and type."""
    found = [{"idx": 0, "name": "0", "path": path, "type": kind} for path, kind in parts]
    return lambda folder: write(folder / "modules.json", found)


def said_of_prompts(prompts: Any, name: Any) -> Callable[[Path], None]:
    """Prompts, and the name of the one that texts begin with."""
    said = {"prompts": prompts, "default_prompt_name": name}
    return lambda folder: write(folder / "config_sentence_transformers.json", said)


ST = "sentence_transformers.models."


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (changed("config.json", auto_map={"AutoModel": "modeling.Evil"}), "has auto_map: code of its own"),
        (changed("config.json", quantization_config={"bits": 4}), "has quantization_config"),
        (changed("config.json", model_type="evil"), "model_type = 'evil'; known are albert, bert"),
        (changed("config.json", is_decoder=True), "describes a decoder"),
        (changed("config.json", hidden_size=10**12), "hidden_size is larger than 2,000,000"),
        (changed("config.json", num_hidden_layers=100_000), "num_hidden_layers is larger than 512"),
        (
            changed("config.json", hidden_size=2**20, intermediate_size=2**20),
            r"an encoder of \de\+13 weights; at most 2e\+10",
        ),
        (
            changed("config.json", model_type="albert", num_hidden_groups=512, inner_group_num=512),
            "num_hidden_groups times inner_group_num is larger than 512",
        ),
        (changed("config.json", layer_norm_eps=math.inf), "layer_norm_eps is no number"),
        (changed("config.json", to_dict="x"), "cannot be used"),
        (changed("config.json", hidden_size="x"), "cannot be used"),
        (modules(("", "evil.Module")), "names 'evil.Module', which would run code of its own"),
        (modules(("", f"{ST}Transformer"), ("../other", f"{ST}Pooling")), r"the path '\.\./other' is no plain name"),
        (modules(("", f"{ST}Transformer"), ("/etc", f"{ST}Pooling")), "the path '/etc' is no plain name"),
        (modules(("", f"{ST}Transformer"), ("1_Pooling", f"{ST}CNN")), "puts together Transformer CNN"),
        (modules(("1_Pooling", f"{ST}Pooling")), "puts together Pooling"),
        (changed("1_Pooling/config.json", pooling_mode_max_tokens=True), "its pool is .*'mean_tokens', 'max_tokens'"),
        (changed("1_Pooling/config.json", pooling_mode="weightedmean"), "its pool is .*'weightedmean'"),
        (changed("1_Pooling/config.json", include_prompt=False), "its pool leaves the prompt out"),
        (changed("2_Dense/config.json", in_features=31), "a dense layer takes 31 numbers, and what comes before gives 32"),
        (changed("2_Dense/config.json", out_features=10**9), "each is from 1 to 16,384"),
        (changed("2_Dense/config.json", activation_function="os.system"), "is followed by 'os.system'"),
        (changed("2_Dense/config.json", use_residual=True), "a dense layer has a residual"),
        (changed("sentence_bert_config.json", max_seq_length="x"), "is x, no number of tokens"),
        (lambda folder: write(folder / "attune.json", {"logit_scale": 1e9}), "is no logarithm of a temperature"),
        (
            lambda folder: write(folder / "attune.json", {"matryoshka_dims": [99]}),
            r"\[99\] are no lengths, 32 at most, below 16",
        ),
        (lambda folder: write(folder / "adapter_config.json", {}), "Merge the adapter into the weights first"),
        (lambda folder: write(folder / "model.safetensors.index.json", {"weight_map": {"a": "../x"}}), "not in the folder"),
        (lambda folder: (folder / "config.json").write_text('{"a": ' * 5000), "cannot be used"),
        (lambda folder: (folder / "config.json").write_text(" " * 1_000_001), "has more than 1,000,000 bytes"),
        (lambda folder: (folder / "config.json").unlink(), r"cannot be used: there is no config\.json\. Take"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is no JSON: Expecting property name"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff"), r"config\.json is no JSON: 'utf-8' codec"),
        (lambda folder: write(folder / "config.json", []), r"config\.json holds a list, and has to hold a JSON object"),
        (changed("config.json", model_type=["bert"]), r"model_type = \"\['bert'\]\"; known are albert"),
        (lambda folder: write(folder / "modules.json", {}), "holds no list of parts"),
        (
            lambda folder: write(folder / "modules.json", [1, 2]),
            r"modules\.json: the part 1 has to be a JSON object with the",
        ),
        (lambda folder: write(folder / "modules.json", [{"type": 1, "path": ""}]), "with the texts type and path"),
        (lambda folder: write(folder / "1_Pooling" / "config.json", []), r"config\.json holds a list"),
        (changed("1_Pooling/config.json", pooling_mode={"mean": True}), r"its pool is \{'mean': True\}"),
        (changed("1_Pooling/config.json", pooling_mode=[["mean"]]), r"its pool is \[\['mean'\]\]"),
        (changed("2_Dense/config.json", module_input_name=[]), "takes something else than the embedding"),
        (changed("2_Dense/config.json", activation_function=[]), r"is followed by '\[\]'"),
        (said_of_prompts(["query: "], "query"), r"prompts = \['query: '\] has to be a JSON object"),
        (said_of_prompts({"query": "query: "}, "document"), "default_prompt_name = 'document' is none of its prompts"),
        (said_of_prompts({"query": "query: "}, ["query"]), r"default_prompt_name = \['query'\] is none of its prompts"),
        (lambda folder: write(folder / "model.safetensors.index.json", {"weight_map": [1]}), "weight_map = .* JSON object"),
        (lambda folder: write(folder / "tokenizer_config.json", [1]), r"tokenizer_config\.json holds a list"),
        (
            lambda folder: (folder / "tokenizer.json").unlink(),
            r"no tokenizer: there is no tokenizer\.json, and none of vocab\.txt",
        ),
    ],
)
def test_a_folder_that_would_run_code_or_is_not_known_is_refused_before_anything_is_loaded(
    copy: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(copy)
    with pytest.raises(ModelError, match=said):
        find_model(str(copy))


def test_links_that_lead_out_of_a_folder_are_refused_where_others_ask(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    (copy / "1_Pooling" / "config.json").rename(outside)
    (copy / "1_Pooling" / "config.json").symlink_to(outside)

    assert find_model(str(copy)).folder == copy
    with pytest.raises(ModelError, match="links that lead out of it"):
        find_model(str(copy), (copy.parent / "copy",))


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


@pytest.mark.parametrize("where", ["pytorch_model.bin", "2_Dense/pytorch_model.bin"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_nothing_is_unpickled(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, how: str) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    if where != "pytorch_model.bin":
        torch.save(load_clip(f"{copy}#scratch").model.text.transformer.state_dict(), copy / "pytorch_model.bin")
    evil = {"linear.weight": Evil(tmp_path / "mark")}
    torch.save(evil, copy / where) if how == "torch" else (copy / where).write_bytes(pickle.dumps(evil, protocol=2))

    with pytest.raises(ModelError):
        load_clip(str(copy))

    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", ["BertTokenizer", "Evil"])
def test_code_beside_a_tokenizer_is_not_run(copy: Path, kind: str) -> None:
    (copy / "evil.py").write_text(f"open({str(copy / 'mark')!r}, 'w')\nclass Evil: pass\n")
    changed("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, tokenizer_class=kind)(copy)

    assert np.isfinite(load_clip(str(copy)).encode_texts(TEXTS)).all()

    assert not (copy / "mark").exists()


@pytest.mark.parametrize("broken", ["missing", "cut short", "of another model", "less than all"])
def test_weights_that_do_not_fit_are_refused(copy: Path, broken: str) -> None:
    file = copy / "model.safetensors"
    if broken == "missing":
        file.unlink()
    elif broken == "cut short":
        file.write_bytes(file.read_bytes()[:1000])
    elif broken == "of another model":
        changed("config.json", intermediate_size=48)(copy)
    else:
        state = load_clip(str(copy)).model.text.transformer.state_dict()
        file.unlink()
        torch.save(dict(list(state.items())[4:]), copy / "pytorch_model.bin")

    with pytest.raises(ModelError, match="could not be loaded"):
        load_clip(str(copy))


def test_a_tokenizer_of_another_model_is_refused(copy: Path) -> None:
    changed("config.json", pad_token_id=7)(copy)
    with pytest.raises(ModelError, match=r"fills up with token 0, and config\.json says pad_token_id = 7"):
        load_clip(str(copy))


def with_vocabulary(*words: str) -> Callable[[dict[str, Any]], None]:
    """Leaves a tokenizer its marks, and these words."""

    def change(tokenizer: dict[str, Any]) -> None:
        marks = [one["content"] for one in tokenizer["added_tokens"]]
        tokenizer["model"]["vocab"] = {word: number for number, word in enumerate([*marks, *words])}

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (with_vocabulary(), "vocabulary is empty: it knows 5 marks and no words"),
        (with_vocabulary("##north", "Where"), "takes every word for an unknown one, those of its own vocabulary as well"),
        (dict.clear, r"tokenizer\.json cannot be used: it has to have an object model and a list added_tokens"),
        (
            lambda tokenizer: tokenizer.update(model={"type": "x"}),
            r"makes no tokenizer of its tokenizer's files \(.*\)\. Take",
        ),
    ],
)
def test_a_tokenizer_that_knows_no_words_is_refused(copy: Path, damage: Callable[[dict[str, Any]], None], said: str) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["added_tokens"].sort(key=lambda one: one["id"])
    damage(tokenizer)
    write(copy / "tokenizer.json", tokenizer)
    for name in (str(copy), f"{copy}#scratch"):
        with pytest.raises(ModelError, match=said):
            load_clip(name)


def test_a_tokenizer_may_be_a_vocabulary_alone(copy: Path) -> None:
    expected = load_clip(str(copy)).encode_texts(TEXTS)
    words = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)) + "\n")

    np.testing.assert_allclose(load_clip(str(copy)).encode_texts(TEXTS), expected, atol=1e-6)
