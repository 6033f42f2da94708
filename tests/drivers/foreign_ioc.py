"""A foreign IOC (EPICS base, by softioc): ``python foreign_ioc.py``; told what to do line by line."""

import sys

from softioc import alarm, asyncio_dispatcher, builder, softioc

builder.SetDeviceName("SR")
current = builder.aIn("CURRENT", initial_value=300.0, EGU="mA")
beat = builder.longIn("BEAT", initial_value=0)
shutter = builder.boolIn("SHUTTER", ZNAM="Closed", ONAM="Open", initial_value=True)
builder.LoadDatabase()
softioc.iocInit(asyncio_dispatcher.AsyncioDispatcher())
print("ready", flush=True)
records = {"current": current, "beat": beat, "shutter": shutter}
for line in sys.stdin:
    name, value, severity = line.split()
    code = int(severity)
    records[name].set(float(value) if name == "current" else int(value), severity=code,
                      alarm=alarm.READ_ALARM if code else alarm.NO_ALARM)  # fmt: skip
    print("done", flush=True)
