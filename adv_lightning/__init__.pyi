"""The public names: `adv_lightning` imports each where it is used first."""

from .attacks import (
    FGSM as FGSM,
)
from .attacks import (
    PGD as PGD,
)
from .attacks import (
    Attack as Attack,
)
from .attacks import (
    AutoAttack as AutoAttack,
)
from .attacks import (
    FoolboxAttack as FoolboxAttack,
)
from .attacks import (
    GaussianNoise as GaussianNoise,
)
from .attacks import (
    MemberAttack as MemberAttack,
)
from .attacks import (
    Noise as Noise,
)
from .attacks import (
    Rotation as Rotation,
)
from .attacks import (
    ScaledGradient as ScaledGradient,
)
from .attacks import (
    SignNoise as SignNoise,
)
from .attacks import (
    SingleStepAttack as SingleStepAttack,
)
from .attacks import (
    TargetedFGSM as TargetedFGSM,
)
from .attacks import (
    TorchAttack as TorchAttack,
)
from .attacks import (
    UniformNoise as UniformNoise,
)
from .callbacks import (
    AdversarialCheckpoint as AdversarialCheckpoint,
)
from .callbacks import (
    AdversarialEarlyStopping as AdversarialEarlyStopping,
)
from .callbacks import (
    ClassCentres as ClassCentres,
)
from .callbacks import (
    FinalMetrics as FinalMetrics,
)
from .callbacks import (
    FiniteLoss as FiniteLoss,
)
from .callbacks import (
    GivenSettings as GivenSettings,
)
from .callbacks import (
    HiddenPerturbation as HiddenPerturbation,
)
from .callbacks import (
    InputNoise as InputNoise,
)
from .callbacks import (
    L1Penalty as L1Penalty,
)
from .callbacks import (
    MaxNorm as MaxNorm,
)
from .callbacks import (
    MomentumSchedule as MomentumSchedule,
)
from .callbacks import (
    NotFiniteError as NotFiniteError,
)
from .callbacks import (
    RubbishTraining as RubbishTraining,
)
from .callbacks import (
    TimedProgressBar as TimedProgressBar,
)
from .callbacks import (
    WholeCheckpointIO as WholeCheckpointIO,
)
from .cli import (
    AdversarialCLI as AdversarialCLI,
)
from .cli import (
    main as main,
)
from .evaluation import (
    AdversarialPictures as AdversarialPictures,
)
from .evaluation import (
    AttackSuite as AttackSuite,
)
from .evaluation import (
    CheckpointEnsemble as CheckpointEnsemble,
)
from .evaluation import (
    Comparison as Comparison,
)
from .evaluation import (
    Evaluator as Evaluator,
)
from .evaluation import (
    FirstLayer as FirstLayer,
)
from .evaluation import (
    Fooling as Fooling,
)
from .evaluation import (
    LogitSweep as LogitSweep,
)
from .evaluation import (
    Report as Report,
)
from .evaluation import (
    RubbishTest as RubbishTest,
)
from .evaluation import (
    Transferred as Transferred,
)
from .losses import (
    LogisticLoss as LogisticLoss,
)
from .losses import (
    Loss as Loss,
)
from .losses import (
    RBFLoss as RBFLoss,
)
from .losses import (
    SigmoidLoss as SigmoidLoss,
)
from .losses import (
    SoftmaxLoss as SoftmaxLoss,
)
from .losses import (
    adversarial_logistic as adversarial_logistic,
)
from .methods import (
    InputSite as InputSite,
)
from .methods import (
    LayerSite as LayerSite,
)
from .methods import (
    Method as Method,
)
from .methods import (
    Objective as Objective,
)
from .methods import (
    Passes as Passes,
)
from .methods import (
    PerturbationSite as PerturbationSite,
)
from .methods import (
    adversarial_objective as adversarial_objective,
)
from .module import (
    AdversarialModule as AdversarialModule,
)

__version__: str
