"""These tests need what is installed on x86-64 only; elsewhere they are not collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("openvino") else ["test_*.py"]
