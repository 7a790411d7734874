"""Tests of the shop: what it writes is told to the other systems."""
import os
import random

import psycopg
import pytest

import shop
from conftest import ask


@pytest.fixture
def db():
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        yield connection


@pytest.fixture
def order():
    return random.randrange(2**47)  # each test has its own, so all may run at once


def test_an_order_is_told(db, order):
    shop.place(db, order, "Ada")
    told = ask(f"/deliveries?trigger=order_placed&path=new.id&value={order}&wait=5s")["deliveries"]
    assert told[0]["body"]["event"]["data"]["new"]["customer"] == "Ada"


def test_a_payment_is_told_signed_and_again_until_it_is_heard(db, order):
    ask("/behaviour", {"trigger": "order_paid", "where": {"new.id": order}, "statuses": [503, 200]}, "PUT")
    shop.place(db, order, "Ada")
    shop.pay(db, order)
    tries = ask(f"/deliveries?trigger=order_paid&path=new.id&value={order}&attempts=all&count=2&wait=10s")["deliveries"]
    assert [attempt["status"] for attempt in tries] == [503, 200]
    assert tries[1]["signature"] == "valid"


def test_what_is_rolled_back_is_recorded_and_told_to_nobody(db, order):
    with db.transaction(force_rollback=True):
        shop.place(db, order, "Ada")
        recorded = db.execute("select trigger, new from rowhook.recorded('order_placed')").fetchall()
        assert [(trigger, new["id"]) for trigger, new in recorded] == [("order_placed", order)]
    shop.place(db, order + 1, "Ada")
    ask("/verify", {"match": {"where": {"new.id": order + 1}}, "within": "5s"})
    ask("/verify", {"match": {"where": {"new.id": order}}, "never": True})
