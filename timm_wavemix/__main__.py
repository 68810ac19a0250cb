"""Run a script, such as timm's train.py, with the WaveMix models registered, or push a model to the Hub."""
import argparse
import os
import runpy
import sys


def main() -> None:
    if sys.argv[1:2] == ['push']:
        from .hub import main as push  # only here, scripts don't need what it imports
        push(sys.argv[2:], prog='python -m timm_wavemix push')
        return
    parser = argparse.ArgumentParser(
        prog='python -m timm_wavemix',
        usage='%(prog)s [-h] SCRIPT [ARGS ...]\n       %(prog)s push [-h] NAME_OR_CHECKPOINT --repo-id ORG/NAME ...',
        description=__doc__,
        epilog='example: %(prog)s train.py --model wavemix_16_5 --data-dir DIR',
    )
    parser.add_argument('script', metavar='SCRIPT', help='path of a Python script, which gets all ARGS')
    script = parser.parse_args(sys.argv[1:2]).script  # the rest is not ours, argparse would drop a '--' from it
    if not os.path.isfile(script):
        parser.exit(2, f"There is no script '{script}': give the path of one. timm's are in its repository, which "
                       "scripts/clone_timm.py clones.\n")

    # `python -m` has imported this package, which registers the models. Now be what `python SCRIPT ARGS` would be.
    del sys.argv[0]
    if not getattr(sys.flags, 'safe_path', False):  # python -P has no folder of the script on the path
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    main()
