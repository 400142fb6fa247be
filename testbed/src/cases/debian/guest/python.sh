python3 -m compileall -q modules
echo compiled
# Told by the interpreter itself: a module that did not fit its source would be compiled again.
import='import asyncio.events, email.mime.text, http.client, json.decoder, logging.config'
PYTHONPATH=$PWD/modules python3 -B -v -c "$import" 2>imports
grep -q "code object from '$PWD/modules/json/__pycache__/decoder" imports
if grep "code object from .*$PWD/modules/.*[.]py$" imports; then exit 1; fi
echo imported
