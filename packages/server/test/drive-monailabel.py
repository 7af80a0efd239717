"""
Drives the client of 3D Slicer's MONAI Label module, unmodified, as the module does: CLIENT.PY URL JSON, whose `what` is
one of the functions below. Prints one line of JSON.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile

path, url, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
spec = importlib.util.spec_from_file_location("client", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
folder = tempfile.mkdtemp()
token = None


def logic():
    """A new client for each request, as the logic of the module makes it."""
    global token
    client = module.MONAILabelClient(url, folder, arguments.get("client", "user-xyz"))
    if client.auth_enabled():
        if token:
            client.update_auth(token)
        if not token or not client.auth_valid_token():
            token = client.auth_token("any name", arguments.get("password", ""))
            client.update_auth(token)
    return client


def segment(image, params, session=None):
    model = logic().info()["models"][arguments["model"]]
    chosen = {k: v[0] if isinstance(v, list) else v for k, v in model["config"].items()}
    chosen.update(params, result_extension=".nrrd", result_dtype="uint8")
    file, answer = logic().infer(arguments["model"], image, chosen, session_id=session)
    shutil.copyfile(file, arguments["out"])
    names = [k for k, _ in sorted(answer["label_names"].items(), key=lambda item: item[1])]
    return {"names": names, "file": os.path.basename(file), "models": list(logic().info()["models"])}


def run():
    image = arguments.get("image", "MRHead")
    what = arguments["what"]
    if what == "segment":
        logic().train_status(True)
        upload = logic().upload_image(arguments["volume"], image)
        return {**segment(image, arguments.get("params", {})), "upload": upload}
    if what == "infer":
        return segment(image, arguments.get("params", {}))
    if what == "session":
        session = logic().create_session(arguments["volume"])["session_id"]
        assert logic().get_session(session)
        answer = segment(image, {}, session)
        logic().remove_session(session)
        return {**answer, "left": logic().get_session(session)}
    if what == "panel":
        return {
            "train": logic().train_status(True),
            "next": logic().next_sample("random", {}),
            "datastore": logic().datastore(),
            "auth": logic().auth_enabled(),
        }
    raise ValueError(what)


try:
    print(json.dumps(run()))
except module.MONAILabelClientException as error:
    print(json.dumps({"error": error.msg}))
finally:
    shutil.rmtree(folder)
