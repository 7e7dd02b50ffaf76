"""What regipy reads of a hive once it has replayed its logs. usage: replay.py HIVE OUT

OUT/computer-name: the name in the control set that boots next; OUT/services.tsv: name, start, program.
"""
import pathlib
import sys
import tempfile

from regipy.recovery import apply_transaction_logs
from regipy.registry import RegistryHive

hive, out = sys.argv[1], pathlib.Path(sys.argv[2])
with tempfile.TemporaryDirectory() as work:
    restored, pages = apply_transaction_logs(hive, hive + ".LOG1", hive + ".LOG2", work + "/restored")
    assert pages > 2, pages
    system = RegistryHive(restored)
    number = system.get_key("\\Select").get_value("Current")
    control = f"\\ControlSet{number:03}"
    name = system.get_key(control + "\\Control\\ComputerName\\ComputerName").get_value("ComputerName")
    (out / "computer-name").write_text(name + "\n")
    rows = []
    for key in system.get_key(control + "\\Services").iter_subkeys():
        values = {value.name: value.value for value in key.iter_values()}
        if "Type" in values:
            rows.append(f"{key.name}\t{values['Start']}\t{values.get('ImagePath', '')}")
    (out / "services.tsv").write_text("\n".join(sorted(rows)) + "\n")
# Without the logs it is another machine: else they would not be tested.
stale = RegistryHive(hive).get_key(control + "\\Control\\ComputerName\\ComputerName").get_value("ComputerName")
assert stale != name, stale
