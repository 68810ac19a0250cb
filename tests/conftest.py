"""No test reaches the real Hub: for all of them, and the processes they start, it is at a socket of our own."""
import os
import socket
import tempfile

# huggingface_hub reads its environment when it is imported, so before any test module
HUB_SOCKET = socket.create_server(('127.0.0.1', 0))
os.environ['HF_ENDPOINT'] = 'http://127.0.0.1:{}'.format(HUB_SOCKET.getsockname()[1])
HF_HOME = tempfile.TemporaryDirectory()  # not the user's cache and token
os.environ['HF_HOME'] = HF_HOME.name
os.environ['HF_HUB_DISABLE_XET'] = '1'  # it has no server but the Hub's
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'
