"""`python -m lora_lightning VERB ...`: reads the words, calls the verb, and ends with its exit code."""

import argparse
import json
import sys
import time
from difflib import get_close_matches
from typing import NoReturn

from lora_lightning import __version__, shipped
from lora_lightning.assist import assist
from lora_lightning.errors import InputError, LoraLightningError, translate
from lora_lightning.runs.ranks import helping
from lora_lightning.runs.reporter import Outcome
from lora_lightning.verbs import VERBS
from lora_lightning.workspace import Workspace


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are our errors, so that --json can carry them."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting."""
        raise InputError(message, f"See `{self.prog} --help`.")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns 0 done, 1 failed, 2 wrong input, 143 stopped on request."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(__version__)
        return 0
    return _run(words[0], words[1:])


def overview() -> str:
    """The help of the whole command."""
    rows = [f"  {name:<13} {verb.words}\n{'':16}{verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: python -m lora_lightning VERB [ARG] [section.field=value ...] [--home DIR] [--json]",
            "",
            "From a folder of pictures to a published FLUX LoRA.",
            "",
            *rows,
            "",
            "RECIPE is a YAML file or the name of a shipped recipe:",
            f"  {shipped.overview()}.",
            "--home DIR is the workspace (default: $LORA_LIGHTNING_HOME, else ./workspace).",
            "--json prints one JSON object as the last line of stdout; everything else goes to stderr.",
            "Exit codes: 0 done, 1 failed, 2 wrong input, 143 stopped on request.",
        ]
    )


def parser(verb: str) -> Parser:
    """The parser of one verb."""
    made = Parser(prog=f"python -m lora_lightning {verb}", description=VERBS[verb].help)
    made.add_argument("words", nargs="*", metavar=VERBS[verb].words or "WORDS", help=argparse.SUPPRESS)
    made.add_argument("--home", metavar="DIR", help="the workspace (default: $LORA_LIGHTNING_HOME, else ./workspace)")
    made.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")
    if verb == "train":
        made.add_argument("--rehearse", action="store_true", help="on the embedded flux-mini first: minutes, on a CPU")
    if verb == "import":
        made.add_argument("--background", metavar="COLOUR", default="white", help="behind transparent pictures")
    if verb == "export":
        made.add_argument("--format", metavar="F", help="the layout to write, such as seed or sidecar")
        made.add_argument("--output", metavar="PATH", help="the folder to write into")
        made.add_argument("--hub", metavar="USER/NAME", help="or a private dataset on the Hugging Face Hub to push to")
    if verb == "import-recipe":
        made.add_argument("--output", metavar="PATH", help="the recipe to write (default: NAME.yaml)")
    made.usage = f"python -m lora_lightning {verb} {VERBS[verb].words} [--home DIR] [--json]".replace("  ", " ")
    return made


def _run(verb: str, words: list[str]) -> int:
    started = time.monotonic()
    as_json = "--json" in words
    human = sys.stderr if as_json else sys.stdout
    try:
        if verb not in VERBS:
            near = get_close_matches(verb, VERBS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of: {', '.join(VERBS)}."
            raise InputError(f"there is no verb {verb!r}", hint)
        arguments = parser(verb).parse_intermixed_args(words)
        if len(arguments.words) < VERBS[verb].minimum_words:
            raise InputError(f"{verb} needs {VERBS[verb].words}", f"See `python -m lora_lightning {verb} --help`.")
        if helping():
            return assist(verb, arguments, Workspace.find(arguments.home))
        outcome = VERBS[verb].do(arguments, Workspace.find(arguments.home), lambda text: print(text, file=human))
    except (Exception, KeyboardInterrupt) as error:
        return _failed(verb, translate(error), as_json, time.monotonic() - started)
    if as_json:
        _print_done(verb, outcome, time.monotonic() - started)
    return 0


def _print_done(verb: str, outcome: Outcome, seconds: float) -> None:
    done = {"ok": True, "verb": verb, "seconds": round(seconds, 3), "made": outcome.made, "report": outcome.report}
    print(json.dumps(done, ensure_ascii=False), flush=True)


def _failed(verb: str, error: LoraLightningError, as_json: bool, seconds: float) -> int:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"{error.hint}", file=sys.stderr)
    if as_json:
        failed = {"ok": False, "verb": verb, "seconds": round(seconds, 3), "error": error.as_dict()}
        print(json.dumps(failed | ({"report": error.report} if error.report else {}), ensure_ascii=False), flush=True)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
