"""`GradienceCallback`: a Trainer that survives a full disk.

Everything turns on one place, `Trainer._save_checkpoint`. A callback has no event before a save and
cannot see one fail, so this one finds the Trainer that it was given to and wraps three of its
methods: `train` (what an earlier crash left is set aside before a resume looks), `_save_checkpoint`
(room is made before, a failure is met after) and `_get_output_dir` (a save goes into a directory of
the guard's own, and gets its name when it is whole).
"""

import functools
import inspect
import os
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gradience.errors import StorageError, UsageError
from gradience.integrations.hf_ranks import Ranks
from gradience.integrations.hf_scope import show, unguarded
from gradience.integrations.hf_state import (
    RandomStates,
    kept,
    planned_saves,
    saves_at_all,
    weigh,
    write_smallest,
)
from gradience.integrations.hf_telemetry import Telemetry
from gradience.storage.checkpoints.names import STATE
from gradience.storage.guard import need
from gradience.storage.guard.cleaning import check_arguments, cleaner
from gradience.storage.guard.need import Start
from gradience.storage.guard.records import Act, Cleaner, EventSink, GuardEvent
from gradience.storage.guard.run import WAIT_SECONDS, Guard
from gradience.storage.guard.watcher import EVERY_SECONDS, Watcher
from gradience.storage.preflight.start import start

OnFull = Literal["warn", "stop", "error"]
_UNGUARDED = (
    "The saves of this run are not guarded: {why}. Broken checkpoints were set aside and the disk "
    "is watched, but no room is kept or made for a save."
)
Preflight = Callable[[Guard, int, int | None], Start]
"""Asked before a run with its guard, how often it saves, and how many checkpoints it keeps."""


def guard(trainer: Trainer, **options: Any) -> "GradienceCallback":
    """Look after a Trainer that was built without a `GradienceCallback`; takes its options.

    Examples
    --------
    >>> guard(trainer)  # doctest: +SKIP
    """
    callback = GradienceCallback(**options)
    trainer.add_callback(callback)
    callback.attach(trainer)
    return callback


class GradienceCallback(TrainerCallback):  # type: ignore[misc]
    """Refuses a run that cannot save, and lets every other one end with a checkpoint that resumes.

    Parameters
    ----------
    on_full : {"error", "stop", "warn"}
        What happens at the start of a run for which there is not enough room: raise, end the run
        after its first step, or go on with a warning.
    rotate : bool
        Whether older complete checkpoints may go when room is short; never the best, nor the
        newest complete one.
    clean : sequence of str or callable, optional
        A cleaning that you allow when room is short: arguments of `gradience cache clean`, such as
        `["--idle", "30d"]`, which then runs with `--yes`; or a function that is called with the
        bytes that are missing, and returns those that it freed.
    on_event : callable, optional
        Is told of everything that happens, as a `GuardEvent`.
    preflight : callable, optional
        Decides on the start in place of `storage.preflight.start`.
    watch_seconds : float
        Between two looks at the disk during the run.
    wait_seconds : float
        How long to wait for another run that saves into the same `output_dir`; then this one is
        refused.
    telemetry : bool, str or Path
        Where the run's log is written: True for `run.jsonl` in its `output_dir`, False for none.
    allow_text : collection of str
        Keys whose texts may stand in the log in full, where others of more than 256 characters are
        redacted.

    Examples
    --------
    >>> Trainer(model, args, callbacks=[GradienceCallback()])  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        on_full: OnFull = "error",
        rotate: bool = True,
        clean: Sequence[str] | Cleaner | None = None,
        on_event: EventSink | None = None,
        preflight: Preflight | None = None,
        watch_seconds: float = EVERY_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        telemetry: bool | str | Path = True,
        allow_text: Collection[str] = (),
    ) -> None:
        if on_full not in ("warn", "stop", "error"):
            raise UsageError(
                f"on_full={on_full!r} is not known", remedy='Give "warn", "stop" or "error".'
            )
        self._on_full = on_full
        self._telemetry = Telemetry(telemetry, allow_text=allow_text)
        self._on_event = on_event
        if clean is not None and not callable(clean):
            check_arguments(clean, os.environ)
        self._clean = clean
        self._options: dict[str, Any] = {
            "rotate": rotate,
            "sink": self._sink,
            "wait_seconds": wait_seconds,
        }
        self._preflight = preflight or start
        self._watch_seconds = watch_seconds
        self._trainer: Trainer | None = None
        self._guard: Guard | None = None
        self._ranks = Ranks()
        self._watcher: Watcher | None = None
        self._guarding = False  # from the start of a run whose saves are guarded to its end
        self._staging = False
        self._weighed = False
        self._stepping: int | None = None  # the step that was counted when the optimizer moved on
        self._random: tuple[int, RandomStates] | None = None

    @property
    def stopped(self) -> str:
        """Why the run was stopped, and how to go on; "" if it was not."""
        return self._guard.stopped if self._guard else ""

    def _cleaner(self, run: Path) -> Cleaner | None:
        if self._clean is None or callable(self._clean):
            return self._clean
        return cleaner(self._clean, [run], environ=os.environ, home=Path.home())

    def attach(self, trainer: Trainer) -> None:
        """Wrap the methods of this Trainer; once. A callback looks after the last one it got."""
        if self._trainer is trainer:
            return
        self._trainer = trainer
        self._ranks = Ranks(trainer.args.world_size, first=trainer.is_world_process_zero())
        run = Path(str(trainer.args.output_dir))
        self._guard = Guard(run, clean=self._cleaner(run), **self._options)
        for name, around in (
            ("train", self._around_train),
            ("_save_checkpoint", self._around_save),
            ("_get_output_dir", self._around_output_dir),
        ):
            original = getattr(trainer, name)
            setattr(trainer, name, functools.wraps(original)(functools.partial(around, original)))
        self._sweep()

    # ---- events

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take hold of the Trainer, and set aside what an earlier crash left."""
        trainer = _trainer_of(self)
        if trainer is not None:
            self.attach(trainer)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Hold what the run will write against what can be written, and keep a reserve."""
        self._stepping = state.global_step
        trainer = _trainer_of(self) or self._trainer
        if trainer is None:
            raise UsageError(
                "GradienceCallback was not given to a Trainer, so it cannot guard its saves",
                remedy="Call gradience.vnext.integrations.hf.guard(trainer) before training.",
            )
        self.attach(trainer)
        self._telemetry.begin(trainer, args, state)
        saves = planned_saves(args, state)
        if not saves:
            return
        if why := unguarded(trainer):
            self._held.tell("unguarded", _UNGUARDED.format(why=why), grave=True)
        else:
            self._weighed = False
            self._claim()
            self._take_weight(trainer, args)
            self._start(args, control, saves)
            self._guarding = not self.stopped
        if self._watcher is None and not self.stopped:
            self._watcher = self._held.watcher(every=self._watch_seconds)
            self._watcher.start()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """From here on, until the next step is counted, the model is ahead of it."""
        self._stepping = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Remember the random states; pass on what the watcher saw."""
        if self._guarding and self._trainer is not None:
            self._random = (state.global_step, RandomStates())
            if not self._weighed:
                self._take_weight(self._trainer, args)
                self._weighed = True
                self._hold_reserve()
        if self._watcher is not None and (news := self._watcher.news()):
            self._held.tell("room", news, state.global_step, grave=True)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """An evaluation draws random numbers; its numbers go into the log."""
        if self._guarding:
            self._random = (state.global_step, RandomStates())
        self._telemetry.evaluated(state, more.get("metrics") or {})

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """What the Trainer logs goes into the log."""
        seen = self._watcher.latest if self._watcher is not None else None
        free = seen.free_bytes if seen is not None else None
        self._telemetry.logged(state, more.get("logs") or {}, free)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Give back what was held; the log ends."""
        self._finish()

    # ---- around the Trainer's methods

    def _around_train(self, original: Callable[..., Any], *words: Any, **options: Any) -> Any:
        self._held.stopped = ""
        outcome: BaseException | None = None
        try:
            self._claim()
            self._sweep()
            return original(*words, **options)
        except BaseException as error:
            outcome = error
            if isinstance(error, Exception):
                self._rescue(error)
            raise
        finally:
            self._finish(outcome)

    def _around_output_dir(self, original: Callable[..., str], trial: Any = None) -> str:
        # After a stop the Trainer would delete all but the best one, if save_total_limit=1.
        elsewhere = self._staging or (self.stopped and self._guards(trial))
        return str(self._held.own.saving) if elsewhere else original(trial)

    def _around_save(self, original: Callable[..., None], model: Any, trial: Any) -> None:
        if not self._guards(trial):
            original(model, trial)
            return
        if self.stopped:
            return
        trainer = self._trainer
        assert trainer is not None
        step, best = trainer.state.global_step, _best_name(trainer.state)
        act = self._ranks.agreed(lambda: self._held.make_room(step, best))
        while act is Act.SAVE:
            error = self._try(lambda: original(model, trial), step)
            if error is None:
                self._after(trainer, step)
                return
            act = self._ranks.agreed(lambda: self._held.make_room(step, best))
        self._end(trainer, step, act)

    # ---- the parts of a save

    def _try(self, write: Callable[[], None], step: int) -> BaseException | None:
        """Save into the guard's own place and publish it; the error, if the disk was why."""
        staged = self._held.own.saving / f"checkpoint-{step}"
        best = self._state.best_model_checkpoint
        error: BaseException | None = None
        self._staging = True
        try:
            if self._ranks.first:
                self._held.own.stage(staged.name)
            write()
        except Exception as raised:  # noqa: BLE001 - torch says RuntimeError, others what they like
            error = raised
        finally:
            self._staging = False
        if self._ranks.all(error is None) and self._ranks.first:
            try:
                self._publish(staged)
            except Exception as raised:  # noqa: BLE001 - as above
                error = raised
        if self._ranks.all(error is None):
            return None
        self._state.best_model_checkpoint = best  # the new best one was not saved
        self._met(error, staged, step)
        return error or _elsewhere()

    def _publish(self, staged: Path) -> None:
        state = self._state
        if state.best_model_checkpoint == str(staged):
            # It is best from now on, under the name that it gets.
            state.best_model_checkpoint = self._final(staged)
            state.save_to_json(str(staged / STATE))
        self._held.own.publish(staged)

    def _met(self, error: BaseException | None, staged: Path, step: int) -> None:
        """Count a failure if the disk was why, and raise it again if it was not."""
        if not self._ranks.all(error is None or self._held.disk_was_why(error, staged)):
            if self._ranks.first:
                self._held.own.discard(staged)
            raise error or _elsewhere()
        # The traceback holds the writer, and the writer the file: it would still take its room.
        traceback.clear_frames(error.__traceback__ if error else None)
        if self._ranks.first:
            self._held.failed(step, error or _elsewhere(), staged)

    def _after(self, trainer: Trainer, step: int) -> None:
        if self._ranks.first:
            checkpoint = self._held.run / f"checkpoint-{step}"
            self._held.saved(step, checkpoint)
            self._held.keep(trainer.args.save_total_limit, _best_name(trainer.state))
            self._hold_reserve()

    def _end(self, trainer: Trainer, step: int, act: Act) -> None:
        """The last save, and a clean stop."""
        checkpoint = self._save_smallest(trainer, step) if act is Act.SMALLEST else None
        if self._ranks.first:
            self._held.stop(step, checkpoint, smallest=checkpoint is not None)
        else:
            self._held.stopped = "stopped"
        trainer.control.should_training_stop = True

    def _save_smallest(self, trainer: Trainer, step: int) -> Path | None:
        """The smallest form that resumes exactly; where nothing else is left, without optimizer."""
        self._held.ballast.release()
        for optimizer in (False,) if trainer.args.save_only_model else (True, False):
            if not optimizer and self._ranks.agreed(lambda: self._held.newest() is not None):
                return None  # what resumes exactly from an earlier step is worth more
            folder = self._held.own.saving / f"checkpoint-{step}"
            write = functools.partial(write_smallest, trainer, folder, optimizer=optimizer)
            if self._try(write, step) is None:
                return self._held.run / folder.name
        return None

    def _rescue(self, error: Exception) -> None:
        """A run dies: if its disk is full, save what is in memory before it goes."""
        trainer = self._trainer
        if trainer is None or not self._guarding or self.stopped:
            return
        if self._ranks.several or not self._held.disk_was_why(error):
            return  # other processes may still be in the middle of a step
        step, newest = trainer.state.global_step, self._held.newest()
        checkpoint: Path | None = None
        # Half-way through a step, what is in memory does not belong together.
        if self._stepping != step and (not newest or newest.step < step):
            if self._random is not None and self._random[0] == step:
                self._random[1].restore()
            checkpoint = self._save_smallest(trainer, step)
        error.add_note(self._held.stop(step, checkpoint, smallest=checkpoint is not None))

    # ---- the parts of a run

    def _sink(self, event: GuardEvent) -> None:
        self._telemetry.guarded(event)
        if event.kind in ("start", "end") and not event.grave and self._ranks.first:
            show(event.message)
        if self._on_event is not None:
            self._on_event(event)

    @property
    def _held(self) -> Guard:
        assert self._guard is not None
        return self._guard

    @property
    def _state(self) -> TrainerState:
        assert self._trainer is not None
        return self._trainer.state

    def _final(self, staged: Path) -> str:
        """The name that a staged checkpoint gets, as the Trainer writes it."""
        assert self._trainer is not None
        return str(Path(str(self._trainer.args.output_dir)) / staged.name)

    def _guards(self, trial: Any) -> bool:
        return trial is None and self._trainer is not None and not unguarded(self._trainer)

    def _claim(self) -> None:
        """Before a resume looks: the directory is of one run at a time."""
        trainer = self._trainer
        if trainer is None or unguarded(trainer) or not saves_at_all(trainer.args):
            return
        if other := self._ranks.agreed(self._held.claim):
            raise StorageError(
                f"{other} saves into {self._held.run} already: two runs there would spoil one "
                "another's checkpoints",
                remedy="Wait until it has ended, or stop it, or give this run another output_dir.",
            )

    def _sweep(self) -> None:
        if self._ranks.first:
            self._held.sweep()
        self._ranks.wait()

    def _take_weight(self, trainer: Trainer, args: TrainingArguments) -> None:
        weights = weigh(trainer)
        self._held.whole = need.whole(weights, only_model=args.save_only_model)
        self._held.smallest = need.smallest(weights, only_model=args.save_only_model)

    def _start(self, args: TrainingArguments, control: TrainerControl, saves: int) -> None:
        asked = self._ranks.agreed(lambda: self._preflight(self._held, saves, kept(args)))
        words = " ".join(asked.lines)
        if asked.refused and self._on_full != "warn":
            message = f"There is not enough room below {self._held.run} for this run. {words}"
            if self._on_full == "error":
                raise StorageError(
                    message,
                    remedy="Free space, save less (save_total_limit, save_only_model, an adapter), "
                    'or name another output_dir; on_full="warn" goes on regardless.',
                )
            self._held.stopped = message
            self._held.tell("stopped", message, grave=True)
            control.should_training_stop = True
            return
        grave = asked.refused or asked.tight
        brief = f"{self._held.run}: {asked.brief}" if asked.brief and not grave else words
        if asked.refused:
            brief = f'{brief} The run goes on regardless (on_full="warn").'
        elif grave:
            brief = f"{brief} {self._held.what_follows()}"
        self._held.tell("start", brief, grave=grave)
        self._hold_reserve()

    def _hold_reserve(self) -> None:
        if self._ranks.first:
            self._held.hold_reserve()

    def _finish(self, error: BaseException | None = None) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        self._guarding = False
        self._random = None
        if self._ranks.first:
            self._held.leave()
        self._telemetry.end(self._state, error, self.stopped)


def _elsewhere() -> StorageError:
    return StorageError("another process of this run failed to save", remedy="See its log.")


def _best_name(state: TrainerState) -> str:
    if state.best_model_checkpoint:
        return Path(state.best_model_checkpoint).name
    step = getattr(state, "best_global_step", None)
    return f"checkpoint-{step}" if step else ""


def _trainer_of(callback: TrainerCallback) -> Trainer | None:
    """The Trainer that is calling this callback.

    Events carry the model, the optimizer and much else, but not the Trainer. Every event is called
    from one of its methods, so it stands in the stack.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Trainer) and callback in caller.callback_handler.callbacks:
            return caller
        frame = frame.f_back
    return None
