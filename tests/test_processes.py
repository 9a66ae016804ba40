"""One process behaves as if there were no others, and of several that fail one speaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch.distributed import TCPStore

from hf_prompting import processes
from hf_prompting.errors import DataError
from hf_prompting.recipe.spreading import spread


def test_one_process_needs_nobody() -> None:
    processes.join_processes()
    assert processes.is_main_process()
    assert processes.agreed("a") == "a"
    assert processes.gathered("a") == ["a"]
    assert processes.handed_out(["a"]) == "a"
    assert processes.may_report_error()
    assert not processes.shards_weights()
    with processes.one_first():
        pass
    processes.leave_processes()


def test_of_several_processes_that_fail_one_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", processes.timedelta(milliseconds=300))
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    spoke = []
    for rank in (1, 0, 2):  # process 1 alone met an error; its end broke the others
        monkeypatch.setenv("RANK", str(rank))
        spoke.append(processes.may_report_error())
        assert processes.error_prefix() == ("" if rank == 0 else f"process {rank} of 3: ")
    assert spoke == [True, False, False]


def test_an_error_is_said_even_where_the_store_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert processes.may_report_error()


def test_an_error_of_a_stream_comes_after_the_results_before_it() -> None:
    def numbers() -> Iterator[int]:
        yield from (1, 2, 3)
        raise DataError("the stream is broken")

    results = spread(numbers(), 2, lambda chunk: ([10 * item for item in chunk], None))
    assert [next(results) for _ in range(3)] == [10, 20, 30]
    with pytest.raises(DataError, match="broken"):
        next(results)


def test_an_error_of_the_work_comes_after_the_results_before_it() -> None:
    results = spread([1, 2, 3], 2, lambda chunk: (chunk[:1], DataError("the second is bad")))
    assert next(results) == 1
    with pytest.raises(DataError, match="second"):
        next(results)
