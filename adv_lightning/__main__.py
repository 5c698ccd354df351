"""`python -m adv_lightning`: answers the top-level help at once, and imports torch for the rest."""

import sys

HELP = """\
usage: python -m adv_lightning COMMAND [--config FILE ...] [--KEY VALUE ...]

Adversarial training and honest evaluation of classifiers with PyTorch Lightning.

commands:
  fit        train:                 fit --config configs/digits.yaml
             go on after a stop:    fit --ckpt_path last
  validate   measure on validation: validate --ckpt_path PATH
  test       judge on the test set: test --ckpt_path PATH
  predict    probabilities:         predict --ckpt_path PATH
  refit      train again from scratch on all training data, for the number of
             epochs that a finished run found best: refit --run lightning_logs/version_0
  compare    judge networks under each other's adversarial examples:
             compare --checkpoints [a.ckpt,b.ckpt]

Several --config files compose; what stands on the command line wins over them,
and they win over what a checkpoint remembers.

  COMMAND --help                  every key of a command (imports torch: some seconds)
  COMMAND --model.backbone.help CLASS   the arguments of a class
  COMMAND --config ... --print_config   the whole configuration, without running it
  --version                       the version
"""


def run(args: list[str]) -> int:
    """Run the command line `args` and return the exit status."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if args else 2
    if args[0] == "--version":
        from adv_lightning import __version__

        print(f"adv_lightning {__version__}")
        return 0
    from adv_lightning.cli.command_line import main

    main(args)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
