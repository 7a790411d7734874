"""The plumbing: ask() asks the receiver. What did not come as wanted is a failure that says what came instead."""
import json, os, urllib.error, urllib.request, pytest
def ask(path, body=None, method=None):
    request = urllib.request.Request(os.environ["ROWHOOK_SINK_URL"] + path, body and json.dumps(body).encode(), method=method)
    try: return json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as answer: pytest.fail(json.load(answer)["explanation"], pytrace=False)
