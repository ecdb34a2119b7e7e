"""What jobs do that a profile must survive: bad.py FOLDER WHAT [WHEN]."""

import os
import sys
import time

import train

root, what, *when = sys.argv[1:]
sys.argv = ["train.py", root]
if what == "hangs" and when == ["before"]:
    time.sleep(3600)
if what == "hangs":
    item = train.Pictures.__getitem__

    def never_comes(self, index):
        if not os.path.exists("begun"):
            open("begun", "w").close()
            return item(self, index)
        time.sleep(3600)

    train.Pictures.__getitem__ = never_comes
if what == "again" and "AGAIN" not in os.environ:
    os.execve(sys.executable, [sys.executable, __file__, root, what], {**os.environ, "AGAIN": "1"})
if what == "asks":
    input("Overwrite the checkpoint? ")
if what == "gpu":
    import torch

    torch.zeros(1).cuda()
train.main()
