"""A Flask application that knows nothing of traces: `opentelemetry-instrument` makes its spans, and `http_proxy` leads what it
asks for through its sidecar. Called with its port."""

import sys

import flask
import requests

app = flask.Flask("shop")


@app.get("/orders/<int:order>")
def order(order):
    stock = requests.get(f"http://stock.mesh/items/{order}?sig=secret&kept=1", timeout=10)
    missing = requests.post("http://ledger.mesh/missing", data=b"12345", timeout=10)
    return {"stock": stock.json(), "missing": missing.status_code}


@app.get("/rates")
def rates():
    return {"rate": 3}


app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
