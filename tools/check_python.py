"Stop with one sentence, before anything is made, where this Python cannot carry the project. Runs on any Python."
import re, sys

low, high = (re.search(o + r'_python = (\S+)', open('settings.ini').read()).group(1) for o in ('min', 'max'))
here = sys.version_info[:2]
if not tuple(map(int, low.split('.'))) <= here <= tuple(map(int, high.split('.'))):
    sys.exit('This project needs Python %s to %s, and %s is %d.%d: name another, as in  make PYTHON=python%s'
             % ((low, high, sys.executable) + here + (high,)))
try: import ensurepip, venv
except ImportError: sys.exit('This Python comes without venv: on Debian or Ubuntu,  apt-get install python3-venv  brings it.')
