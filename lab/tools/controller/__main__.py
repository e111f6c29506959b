# SPDX-License-Identifier: Apache-2.0
"""python -m lab.tools.controller FILE: says `ready` when all switches have come, then answers them until SIGTERM."""

import sys
from pathlib import Path

from os_ken import cfg
from os_ken.base.app_manager import AppManager

from lab.tools.controller import PORT, app

app.told = app.Told.read(Path(sys.argv[1]))
cfg.CONF(args=["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", str(PORT)], project="os_ken")
AppManager.run_apps([app.__name__])
