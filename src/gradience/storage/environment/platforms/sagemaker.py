"""SageMaker: a notebook's volume, or the training job's volume at /opt/ml."""

from gradience.storage.environment.platforms.platform import Candidate, Platform

SAGEMAKER = Platform(
    name="sagemaker",
    title="Amazon SageMaker",
    variables=("SM_CURRENT_HOST", "SAGEMAKER_APP_TYPE"),
    roots=(
        Candidate(path="/home/ec2-user/SageMaker", kind="the notebook's volume"),
        Candidate(path="/home/sagemaker-user", kind="the space's volume"),
        Candidate(path="/opt/ml", kind="the job's volume"),
    ),
    home="/root",
    keeps="A notebook's volume survives a stop; a training job uploads /opt/ml/model and "
    "/opt/ml/checkpoints only.",
)
