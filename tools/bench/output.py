"""What every command of `alexnet-bench` does around its measuring: say what runs, print, write files, and end as it went."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
from markupsafe import Markup
from rich.console import Console

from alexnet.shards.errors import InputError, reason_of
from alexnet.tools.bench.report import Clock, Report, Row, to_json
from alexnet.tools.bench.tables import lines_after, lines_before, number, print_report, settings_lines, tables_of
from alexnet.tools.console import StoppedError, interruptible
from alexnet.tools.start import INTERRUPTED
