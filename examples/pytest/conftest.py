"""The plumbing: ask() asks the receiver. What did not come as wanted is a failure that says what came instead."""
import json, os, urllib.error, urllib.request, pytest
def ask(path, body=None, method=None):
    try: answer = urllib.request.urlopen(urllib.request.Request(os.environ["ROWHOOK_SINK_URL"] + path, body and json.dumps(body).encode(), method=method))
    except urllib.error.HTTPError as problem: answer = problem
    return json.load(answer) if answer.status < 300 else pytest.fail(json.load(answer)["explanation"], pytrace=False)
