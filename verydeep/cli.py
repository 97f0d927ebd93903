"""The command line: its verbs together, and its end."""

import io
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Literal

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    UnknownCommandError,
    UnusedCliTokensError,
)

from verydeep.commands.compare import compare
from verydeep.commands.describe import describe
from verydeep.commands.doctor import doctor
from verydeep.commands.evaluate import evaluate
from verydeep.commands.export import export
from verydeep.commands.features import features
from verydeep.commands.findings import findings
from verydeep.commands.help_pages import register
from verydeep.commands.import_weights import import_
from verydeep.commands.localise import localise
from verydeep.commands.options import (
    EVERY_OPTION,
    FIRST_GROUP,
    options_file,
    refuse_fractions,
    split_lists,
)
from verydeep.commands.other_tools import (
    display_name,
    known_here_as,
    known_value,
    known_verb,
    names_of,
    refuse_unknown_options,
)
from verydeep.commands.outputs import refuse_overwriting, refuse_without_output
from verydeep.commands.paths import expand_home, refuse_what_is_no_path
from verydeep.commands.predict import predict
from verydeep.commands.push import push
from verydeep.commands.reproduce import reproduce
from verydeep.commands.scan import scan
from verydeep.commands.serve import serve
from verydeep.commands.starting_point import follow_from_start
from verydeep.commands.train import train
from verydeep.commands.transfer import transfer
from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.machine.errors import one_line, reason, say
from verydeep.machine.runtime import Stopped, ended_by_signals
from verydeep.machine.standard_streams import silence
from verydeep.machine.threads import wait_asleep
from verydeep.machine.torchrun import check_variables, rank_of_environment, under_torchrun
from verydeep.presentation.terminal import PipedConsole
from verydeep.version import __version__

_FAILURE, WRONG_USE = 1, 2

Shell = Literal["bash", "zsh", "fish"]

_ON_SEVERAL_PROCESSES = ("train", "evaluate", "reproduce", "predict", "features", "localise train")

app = App(
    name="verydeep",
    suppress_keyboard_interrupt=False,
    default_parameter=EVERY_OPTION,
    group_parameters=FIRST_GROUP,
    group_arguments=Group("Arguments", sort_key=-1),
    version=__version__,
    help="The VGG paper as a tool: train its networks, test them its way, repeat its experiment on your images.",
    help_epilogue="verydeep VERB --help lists a verb's options, with an example. An error is one line; --debug shows "
    "where it comes from. verydeep doctor tells whether this computer has all that is needed.",
)


def completion(shell: Shell, /) -> None:
    """Print a script that makes a shell complete verbs, options and their values with the Tab key.

    For bash: verydeep completion bash > ~/.local/share/bash-completion/completions/verydeep. For zsh, with a folder
    that fpath has before compinit: verydeep completion zsh > ~/.zsh/completions/_verydeep. For fish: verydeep
    completion fish > ~/.config/fish/completions/verydeep.fish.

    Args:
        shell: bash, zsh or fish.
    """
    print(app.generate_completion(shell=shell), end="")


_NETWORKS = describe, scan, train, evaluate, compare, predict, serve, import_, export, push
_EXPERIMENTS = reproduce, findings, features, transfer
_ABOUT = doctor, completion
for verb in (*_NETWORKS, *_EXPERIMENTS, *_ABOUT):
    register(app, verb)
app.command(localise)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit: 0 done, 2 wrong use, 1 failure; 130, 141, 143 after SIGINT, SIGPIPE, SIGTERM."""
    wait_asleep()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be valid text
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or bool(os.environ.get("VERYDEEP_DEBUG"))
    tokens = [token for token in given if token != "--debug"]
    try:
        check_variables()
        if under_torchrun() and not {*tokens[:1], " ".join(tokens[:2])} & {*_ON_SEVERAL_PROCESSES}:
            several = f"{', '.join(_ON_SEVERAL_PROCESSES[:-1])} and {_ON_SEVERAL_PROCESSES[-1]}"
            raise ValueError(f"only {several} work on several processes: start this without torchrun")
        app.console = PipedConsole()
        with ended_by_signals():
            app.config = (
                *options_file(tokens),
                expand_home,
                refuse_what_is_no_path,
                follow_from_start,
                split_lists,
                refuse_fractions,
                refuse_unknown_options,
                refuse_without_output,
                refuse_overwriting,
            )
            app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of standard output has stopped, as `head` does
        silence(sys.stdout)
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if debug:
            raise
        sys.exit(_explain(error, tokens))
    except KeyboardInterrupt:
        say("verydeep: stopped")
        sys.exit(130)


_NO_MEMORY = re.compile(
    r"^MemoryError|allocate memory|could not create a (primitive|memory)|bad_alloc|failed to map segment"
)
"""How Python and NumPy, PyTorch, oneDNN, C++ and the loader of libraries say that memory has run out."""


def _explain(error: Exception, tokens: Sequence[str]) -> int:
    """Print the error in one line, and return the exit status for it."""
    message = one_line(error)
    match error:
        case Stopped():
            status = error.exit_code
        case CycloptsError():
            status, message = WRONG_USE, _of_command_line(error, message, tokens)
        case OSError() if error.errno is not None and error.filename is not None:
            status, message = _of_system(error, tokens)
        case MemoryError() | RuntimeError() | ImportError() if _NO_MEMORY.search(f"{error!r} {message}"):
            status, message = _FAILURE, f"there is not enough memory: {message}"
        case RuntimeError() if "start new thread" in message:
            status, message = _FAILURE, f"the system gives no more threads: a larger ulimit -u ({message})"
        case TooManyBadImagesError() | OSError() | RuntimeError():
            status = _FAILURE
        case ValueError():
            status = WRONG_USE
        case _:
            status, message = _FAILURE, f"{type(error).__name__}: {message} (--debug shows where)"
    say(f"verydeep: {_speaker()}{message}")
    return status


def _speaker() -> str:
    """Return which of several processes speaks; nothing of one alone, or where variables do not tell."""
    with suppress(ValueError):
        return f"process {rank_of_environment()}: " if under_torchrun() else ""
    return ""


def _of_command_line(error: CycloptsError, message: str, tokens: Sequence[str]) -> str:
    """Return the message for wrong use, in words of ours where the library's say less, and where to read more."""
    chain = tuple(error.command_chain or ())
    words = _of_options_file(chain, message) or _in_our_words(error, chain, tokens) or _without_types(message)
    return f"{words} (see {' '.join(('verydeep', *chain))} --help)"


def _in_our_words(error: CycloptsError, chain: Sequence[str], tokens: Sequence[str]) -> str | None:
    """Say what other tools' words are called here, which argument is missing, or which word was not expected."""
    unused = error.unused_tokens or ()
    if isinstance(error, UnknownCommandError) and unused:
        return known_verb(unused[0])
    if chain and (known := known_here_as(names_of(_verb(chain).assemble_argument_collection()), tokens[len(chain) :])):
        return known
    match error:
        case CoercionError() if error.token and error.argument:
            return known_value(error.argument.name, error.token.value)
        case MissingArgumentError() if error.argument and not error.argument.tokens:
            return f"{' '.join(chain)} needs {display_name(error.argument)}{_data_among_runs(error, tokens)}"
        case UnusedCliTokensError() if unused:
            before = next((option for option, word in pairwise(tokens) if word == unused[0]), "")
            return f"unexpected argument {unused[0]}" + (f": {before} takes no value" if before.startswith("-") else "")
    return None


_UNKNOWN_IN_FILE = re.compile(r'Unknown option: "\[(.+)\]" from (.+)\.$')
"""The library's message about a file of options, where it does not guess what was meant."""


def _of_options_file(chain: Sequence[str], message: str) -> str | None:
    """Say that an option in a file is unknown, and what it is called here if it is another tool's."""
    found = _UNKNOWN_IN_FILE.match(message)
    if found is None:
        return None
    name = found[1].replace("_", "-")
    known = known_here_as(names_of(_verb(chain).assemble_argument_collection()), [f"--{name}"])
    return f"{found[2]}: {known or f'there is no option {name}'}"


def _without_types(message: str) -> str:
    """Reword the library's message about a value, with choices as a list and `number` in place of types of Python."""
    before, _, kinds = message.partition(" into ")
    choices = re.sub(r"Literal\[([^]]*)\]\|?", r"\1, ", kinds).rstrip(", .")
    if choices and "Literal[" in message:
        return f"{before}: choose one of {choices}"
    if number := re.fullmatch(r'Invalid value for (.+): unable to convert "(.*)" into (int|float)\.', message):
        return f"{number[1]} is a {'whole ' * (number[3] == 'int')}number, not {number[2]}"
    return message


def _data_among_runs(error: MissingArgumentError, tokens: Sequence[str]) -> str:
    """Say which word of a line without --data may be the images: the last, if it is neither an option nor a run."""
    last = tokens[-1]
    is_data = error.argument is not None and error.argument.name == "--data" and not last.startswith("-")
    return (
        f"; did you mean --data {shlex.quote(last)}?"
        if is_data and len(tokens) > 2 and not _is_run_or_file(last)
        else ""
    )


def _is_run_or_file(name: str) -> bool:
    """Return whether a word names an exported file, or a folder of a run, a model or a classifier."""
    from verydeep.runs.files import CLASSIFIER, CONFIG, MODEL, RECORD

    return Path(name).is_file() or any((Path(name) / part).exists() for part in (RECORD, CONFIG, MODEL, CLASSIFIER))


def _verb(chain: Sequence[str]) -> App:
    verb = app
    for word in chain:
        verb = verb[word]
    return verb


def _of_system(error: OSError, tokens: Sequence[str]) -> tuple[int, str]:
    """Return status and message for an error of the system: wrong use where the command line names the path."""
    path = os.fsdecode(error.filename)
    named = any(Path(path).is_relative_to(value) for token in tokens if (value := token.rpartition("=")[2]))
    return (WRONG_USE if named else _FAILURE), f"{path} cannot be used: {reason(error)}"
