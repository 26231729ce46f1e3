"""Editing many captions at once: what to do, what it would do, then one step that can be taken back."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from lora_lightning.datasets import editing, ledger
from lora_lightning.datasets.editing import Change, Edit
from lora_lightning.datasets.kinds import CAPTION
from lora_lightning.datasets.ledger import Bulk, BulkResult, Replaced
from lora_lightning.datasets.store import Dataset
from lora_lightning.ui import cards, diff, filters
from lora_lightning.ui.filters import View

KINDS = ("Find and replace", "Put first", "Put last", "Insert trigger", "Remove sentences")
ROWS_SHOWN = 12
EDITS_SHOWN = 15
NAMES_SHOWN = 10


@dataclass(frozen=True)
class Entry:
    """A bulk edit as the list shows it: `latest` is the last step of its undoing and redoing, or the edit itself."""

    edit: Bulk
    latest: Bulk
    undone: bool


@dataclass(frozen=True)
class Outcome:
    """How an edit ended; `names` are the first pictures in conflict."""

    title: str
    result: BulkResult
    names: list[str]


def panel(dataset: Dataset, view: View) -> None:
    """The form with its preview, and the edits made so far."""
    _outcome()
    form = st.expander("Edit many captions", icon=":material/edit_square:", key="bulk.new", on_change="rerun")
    if form.open:
        with form, cards.reported():
            edit = _edit(view.trigger)
            if edit is not None:
                _preview(dataset, view, edit)
            else:
                st.markdown(f":gray[It changes nothing but the {_scope(view)} in view, after a preview.]")
    past = entries(ledger.bulks(dataset))
    if past:
        with st.expander(f"Past edits of many captions ({len(past)})", icon=":material/history:", key="bulk.past"):
            for entry in past[:EDITS_SHOWN]:
                _entry(dataset, entry)


def entries(bulks: Sequence[Bulk]) -> list[Entry]:
    """Each edit once, with where its undoing and redoing has got to, the latest edit first.

    Args:
        bulks: as `ledger.bulks` gives them, the latest first.
    """
    undoing = {bulk.undoes: bulk for bulk in reversed(bulks) if bulk.undoes is not None}
    found = []
    for edit in bulks:
        if edit.undoes is None:
            latest, undone = edit, False
            while latest.id in undoing:
                latest, undone = undoing[latest.id], not undone
            found.append(Entry(edit, latest, undone))
    return found


def _edit(trigger: str) -> Edit | None:
    """The widgets of an edit; None while something is missing."""
    round_ = st.session_state.get("bulk.round", 0)
    kind = st.segmented_control("What to do", KINDS, default=KINDS[0], required=True, key=f"bulk.kind.{round_}")
    match kind:
        case "Put first":
            text = st.text_input("Text before each caption", key=f"bulk.first.{round_}")
            return editing.prefix(text) if text else None
        case "Put last":
            text = st.text_input("Text behind each caption", key=f"bulk.last.{round_}")
            return editing.suffix(text) if text else None
        case "Insert trigger":
            word = st.text_input("Trigger word", trigger, key=f"bulk.trigger.{round_}", help="Where it is missing.")
            return editing.insert_trigger(word.strip()) if word.strip() else None
        case "Remove sentences":
            text = st.text_input("Every sentence that contains", key=f"bulk.sentence.{round_}", placeholder="watermark")
            return editing.remove_sentences(text) if text.strip() else None
    with st.grid("auto", min_column_width=240):
        find = st.text_input("Find this", key=f"bulk.find.{round_}")
        replacement = st.text_input("Replace by", key=f"bulk.replacement.{round_}")
    with st.container(horizontal=True):
        whole = st.toggle("Whole words", key=f"bulk.whole.{round_}", help="`cat`, but not `concatenate`.")
        case = st.toggle("Match case", True, key=f"bulk.case.{round_}")
        regex = st.toggle("Regular expression", key=f"bulk.regex.{round_}", help=r"`\1` stands for its first group.")
    if not find:
        return None
    return editing.replace(find, replacement, is_regex=regex, match_case=case, whole_words=whole)


def _preview(dataset: Dataset, view: View, edit: Edit) -> None:
    changes = editing.preview(view.pictures, edit)
    st.button(
        f"Change {cards.counted(len(changes), 'caption')}",
        type="primary",
        icon=":material/done_all:",
        key="bulk.apply",
        disabled=not changes,
        on_click=_apply,
        args=(dataset, edit, changes, view.kind),
    )
    st.markdown(f":gray[{len(changes):,} of the {_scope(view)} in view would change.]")
    if changes:
        first = changes[:ROWS_SHOWN]
        diff.show([(change.before, change.after) for change in first], [change.name for change in first])
    if len(changes) > ROWS_SHOWN:
        st.markdown(f":gray[and {len(changes) - ROWS_SHOWN:,} more]")


def _entry(dataset: Dataset, entry: Entry) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        verb, icon = ("Redo", ":material/redo:") if entry.undone else ("Undo", ":material/undo:")
        st.button(verb, icon=icon, key=f"bulk.undo.{entry.edit.id}", on_click=_undo, args=(dataset, entry, verb))
        state = "" if entry.edit.kind == CAPTION else f" :blue-badge[{filters.KINDS[entry.edit.kind]}]"
        state += " :gray-badge[undone]" if entry.undone else ""
        when = f"{cards.counted(entry.edit.captions, 'caption')}, {cards.ago(entry.edit.written)}"
        st.markdown(f"{cards.escape(entry.edit.title)} :gray[:small[{when}]]{state}", width="stretch")
        key = f"bulk.show.{entry.edit.id}"
        panel = st.popover("Show", icon=":material/difference:", key=key, on_change="rerun")
    if panel.open:
        with panel:
            _changed(dataset, entry.edit)


def _changed(dataset: Dataset, edit: Bulk) -> None:
    """What an edit did, caption by caption, with the way back for each that nobody has changed since."""
    rows = ledger.replaced(dataset, edit.id, ROWS_SHOWN)
    for row in rows:
        diff.show([(row.before, row.after)], [row.name])
        if row.stands:
            st.button(
                "Restore this one",
                key=f"bulk.restore.{edit.id}.{row.picture}",
                icon=":material/settings_backup_restore:",
                type="tertiary",
                on_click=_restore,
                args=(dataset, row),
            )
    if edit.captions > len(rows):
        st.markdown(f":gray[and {edit.captions - len(rows):,} more: filter for them, and use a caption's History]")


def _restore(dataset: Dataset, row: Replaced) -> None:
    """Take back what an edit did to one caption."""
    with cards.reported():
        ledger.restore(dataset, row)
        st.toast(f"{cards.escape(row.name)} is as before", icon=":material/undo:")


def _apply(dataset: Dataset, edit: Edit, changes: Sequence[Change], kind: str) -> None:
    """Store what the preview showed, and nothing else: the changes carry the versions that it was made from."""
    with cards.reported():
        _tell(dataset, edit.title, editing.apply(dataset, edit, changes, kind))
        st.session_state["bulk.round"] = st.session_state.get("bulk.round", 0) + 1


def _undo(dataset: Dataset, entry: Entry, verb: str) -> None:
    with cards.reported():
        _tell(dataset, f"{verb}: {entry.edit.title}", ledger.undo(dataset, entry.latest.id))


def _tell(dataset: Dataset, title: str, result: BulkResult) -> None:
    names = [dataset.picture(id).name for id in result.conflicts[:NAMES_SHOWN]]
    st.session_state["bulk.outcome"] = Outcome(title, result, names)


def _outcome() -> None:
    """How the last edit ended, until the next click."""
    outcome: Outcome | None = st.session_state.pop("bulk.outcome", None)
    if outcome is None:
        return
    conflicts = len(outcome.result.conflicts)
    changed = f"{cards.counted(len(outcome.result.written), 'caption')} changed"
    if not conflicts:
        st.success(cards.escape(outcome.title), title=changed, icon=":material/check_circle:")
        return
    more = f" and {conflicts - len(outcome.names):,} more" if conflicts > len(outcome.names) else ""
    st.warning(
        f"Edited meanwhile, and left as they are: {cards.escape(', '.join(outcome.names))}{more}",
        title=f"{changed}, {cards.counted(conflicts, 'conflict')}",
        icon=":material/call_split:",
    )


def _scope(view: View) -> str:
    return cards.counted(sum(bool(picture.caption) for picture in view.pictures), "caption")
