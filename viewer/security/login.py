"""Signing in and out: a form that works without JavaScript, and the two requests that change something.

Each carries a token that another site's page cannot know. Attempts to sign in are limited before the password is
looked at, so that what is told in time or words never depends on it.
"""

from __future__ import annotations

import math
import secrets
import time

from flask import Flask, Response, make_response, redirect, render_template, request

from viewer.security.authenticator import DEVICE_S, SESSION_S, Authenticator, Session, session_of
from viewer.security.login_throttle import LoginThrottle
from viewer.security.middleware import cookie, cookie_name, is_https
from viewer.security.rejection_log import RejectionLog, address

WRONG = "This is not the password."
OLD = "This page was too old, or cookies are blocked. Try again."


def add_login(app: Flask, access: Authenticator, refusals: RejectionLog) -> None:
    """Give the app its routes for signing in and out."""
    attempts = LoginThrottle(time.monotonic())

    @app.get("/login")
    def login() -> Response:
        return to_page() if session_of(request.environ) else form(access)

    @app.post("/login")
    def sign_in() -> Response:
        if not access.has_login:
            return to_page()
        if not access.is_token(request.form.get("token", ""), cookie(request.environ, "form") or ""):
            refusals.tell(request.environ, "sign-in with a forged token, or none")
            return form(access, OLD, 403)
        who = address(request.environ), access.device(cookie(request.environ, "device"))
        if wait_s := attempts.begin(*who, time.monotonic()):
            refusals.tell(request.environ, "sign-in, too many wrong passwords before")
            return form(access, f"Too many attempts. Try again in {math.ceil(wait_s)} s.", 429, math.ceil(wait_s))
        if not access.is_password(request.form.get("password", "")):
            refusals.tell(request.environ, "sign-in with a wrong password")
            return form(access, WRONG, 401)
        attempts.succeeded(*who)
        answer = set_cookie(to_page(), "session", access.new_cookie(), int(SESSION_S))
        return set_cookie(answer, "device", access.new_device(), int(DEVICE_S))

    @app.post("/logout")
    def sign_out() -> Response:
        session = session_of(request.environ)
        if session is None or not access.has_login:
            return to_page()
        if not access.is_token(request.form.get("token", ""), session.id):
            refusals.tell(request.environ, "sign-out with a forged token, or none")
            return Response("this page was too old; load it again\n", 403, mimetype="text/plain")
        access.end(session)
        return set_cookie(make_response(redirect("/login", 303)), "session", "", 0)

    @app.get("/api/session")
    def session() -> Response:
        return Response(status=204)  # the gate has looked; a page without a socket asks whether it is signed out


def sign_out_token(access: Authenticator, session: Session | None) -> str | None:
    """Return what the page's sign-out form must carry; None where nobody signs in."""
    return access.token(session.id) if session and access.has_login else None


def form(access: Authenticator, message: str = "", status: int = 200, wait_s: int = 0) -> Response:
    """Return the page to sign in on, with a cookie that its token belongs to."""
    known = cookie(request.environ, "form") or secrets.token_urlsafe(16)
    answer = make_response(render_template("login.html", token=access.token(known), message=message), status)
    if wait_s:
        answer.headers["Retry-After"] = str(wait_s)
    return set_cookie(answer, "form", known, None)


def to_page() -> Response:
    """Send a browser to the page."""
    return make_response(redirect("/", 303))


def set_cookie(answer: Response, purpose: str, value: str, max_age_s: int | None) -> Response:
    """Let a browser keep a cookie that no script reads. max_age_s: None until the browser is closed.

    Lax, not Strict: whoever follows a link from a chat or a dashboard should be signed in, and no GET changes anything.
    """
    answer.set_cookie(
        cookie_name(request.environ, purpose),
        value,
        max_age=max_age_s,
        secure=is_https(request.environ),
        httponly=True,
        samesite="Lax",
    )
    return answer
