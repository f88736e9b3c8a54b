"""A run that is killed at the end of its third step, after it was logged: `killed_run.py OUT`."""

import os
import signal
import sys

from transformers import Trainer, TrainerCallback, TrainingArguments

from gradience.vnext.integrations.hf import GradienceCallback
from survival_run import make_data, make_model


class Killed(TrainerCallback):
    """Kills this process."""

    def on_log(self, args, state, control, **_):
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    Trainer(
        model=make_model("tiny", adapter=False),
        args=TrainingArguments(
            output_dir=sys.argv[1],
            max_steps=4,
            save_steps=2,
            logging_steps=1,
            per_device_train_batch_size=4,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=make_data(),
        callbacks=[GradienceCallback(), Killed()],
    ).train()


if __name__ == "__main__":
    main()
