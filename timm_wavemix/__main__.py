"""Run a script, such as timm's train.py, with the WaveMix models registered, or one of the commands."""
import argparse
import os
import runpy
import sys
from importlib import import_module

COMMANDS = {'push': 'hub.push', 'export': 'export', 'clone-timm': 'clone_timm'}  # the module whose main() each is


def main() -> None:
    is_module = os.path.basename(sys.argv[0]) == '__main__.py'
    prog = 'python -m timm_wavemix' if is_module else 'timm-wavemix'
    command = sys.argv[1] if len(sys.argv) > 1 else ''
    if command in COMMANDS:
        import_module(f'timm_wavemix.{COMMANDS[command]}').main(sys.argv[2:], prog=f'{prog} {command}')
        return
    parser = argparse.ArgumentParser(
        prog=prog,
        usage='''%(prog)s [-h] SCRIPT [ARGS ...]
       %(prog)s push MODEL --repo-id ORG/NAME ...
       %(prog)s export MODEL RUNTIME FILE ...
       %(prog)s clone-timm [DIR] ...''',
        description=__doc__,
        epilog='''commands, each with its own --help:
  push        publish a model on the Hugging Face Hub, with a model card
  export      write a model as the file of ONNX, OpenVINO or another runtime
  clone-timm  get timm's scripts

example: %(prog)s train.py --model wavemix_16_5 --data-dir DIR''',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('script', metavar='SCRIPT', help='path of a Python script, which gets all ARGS')
    script = parser.parse_args(sys.argv[1:2]).script  # the rest is not ours, argparse would drop a '--' from it
    if not os.path.isfile(script):
        parser.exit(2, f"{prog}: there is no script or command '{script}'. `{prog} clone-timm` gets timm's scripts.\n")

    # importing this package has registered the models. Now be what `python SCRIPT ARGS` would be.
    del sys.argv[0]
    if not getattr(sys.flags, 'safe_path', False):  # python -P has no folder of the script on the path
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    main()
