"""Keep the model libraries from talking over a run's own progress."""

import logging

import diffusers
import transformers


def hush() -> None:
    """Errors only, and no bars for loading weights that take a second; downloads keep theirs."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
