"""``bench``: how fast this library is, measured on the user's machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_prompting.cli.errors import user_errors
from hf_prompting.cli.options import Debug
from hf_prompting.errors import BenchmarkError

bench = typer.Typer(no_args_is_help=True, help="Measure speed and memory against other libraries, on this machine.")

Settings = Annotated[Path, typer.Option("--settings", help="YAML file that says what to measure.")]
OutputDir = Annotated[Path, typer.Option("--output-dir", help="Folder for JSON, table and picture.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="The file's smoke section: for breakage, not for time.")]


@bench.command()
def prompt(
    settings: Settings = Path("recipes/benchmarks/prompt.yaml"),
    output_dir: OutputDir = Path("outputs/benchmarks"),
    smoke: Smoke = False,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="NAME=FOLDER", help="Data of a line that ships none; repeatable."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Prompt tuning and classification against PEFT, transformers and OpenPrompt.

    Every contender runs in a process of its own, on the same model, rows and order, and they take turns.

    Examples:

    \b
    hf-prompting bench prompt
    hf-prompting bench prompt --smoke --output-dir /tmp/bench
    hf-prompting bench prompt --data tnews=FOLDER --data iflytek=FOLDER
    """
    with user_errors(debug):
        from rich.console import Console

        from hf_prompting.benchmarks.machine import describe_machine
        from hf_prompting.benchmarks.picture import draw_ratios
        from hf_prompting.benchmarks.prompt import measure_prompts, settings_without_paths
        from hf_prompting.benchmarks.prompt_settings import PromptBenchmark
        from hf_prompting.benchmarks.results import result_table, write_json, write_table
        from hf_prompting.recipe.reader import read_recipe_as

        read = read_recipe_as(PromptBenchmark, settings, smoke=smoke).recipe
        console = Console(stderr=True)
        measures, machine, plain = [], describe_machine(), settings_without_paths(read)
        with console.status("prepare") as status:
            for measure in measure_prompts(read, data=_pairs(data or []), say=status.update):
                measures.append(measure)
                console.print(f"[dim]{measure.name}: {measure.verdict or 'done'}[/dim]", highlight=False)
                # After each line, so that an error in a late one loses none of the minutes before it.
                write_json(output_dir / "prompt.json", machine=machine, settings=plain, measures=measures)
        title = f"{machine['cpu']}, {machine['threads']} threads"
        write_table(output_dir / "prompt.md", f"hf-prompting bench prompt: {title}", measures)
        draw_ratios(output_dir / "prompt.png", measures, title=title)
        Console().print(result_table(f"bench prompt: {title}", measures))
        print(f"Written to {output_dir}")


@bench.command()
def seq2seq(
    output_dir: OutputDir = Path("outputs/benchmarks"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny models, one round: for breakage, not for time.")] = False,
    debug: Debug = False,
) -> None:
    """The encoder-decoder against BART, T5 and torch.nn.Transformer of the same size: training and generation.

    Every contender runs in a process of its own, with random weights of the same number, and they take turns.

    Examples:

    \b
    hf-prompting bench seq2seq
    hf-prompting bench seq2seq --smoke --output-dir /tmp/bench
    """
    with user_errors(debug):
        from rich.console import Console

        from hf_prompting.benchmarks.machine import describe_machine
        from hf_prompting.benchmarks.picture import draw_ratios
        from hf_prompting.benchmarks.results import result_table, write_json, write_table
        from hf_prompting.benchmarks.seq2seq import measure_seq2seq, settings_of

        console = Console(stderr=True)
        measures = []
        with console.status("prepare") as status:
            for measure in measure_seq2seq(smoke=smoke, say=status.update):
                measures.append(measure)
                console.print(f"[dim]{measure.name}: {measure.verdict or 'done'}[/dim]", highlight=False)
        machine, settings = describe_machine(), settings_of(smoke=smoke)
        write_json(output_dir / "seq2seq.json", machine=machine, settings=settings, measures=measures)
        title = f"{machine['cpu']}, {machine['threads']} threads"
        write_table(output_dir / "seq2seq-results.md", f"hf-prompting bench seq2seq: {title}", measures)
        draw_ratios(output_dir / "seq2seq.png", measures, title=title)
        Console().print(result_table(f"bench seq2seq: {title}", measures))
        print(f"Written to {output_dir}")


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    for name, folder in pairs.items():
        if not (Path(folder).expanduser() / "labels.json").is_file():
            raise BenchmarkError(f"--data {name}={folder}: a folder with labels.json and test.jsonl is needed")
    return {name: str(Path(folder).expanduser().absolute()) for name, folder in pairs.items()}
