"""Sign-in and sign-out: a form that works without JavaScript, and the two requests that change something.

Both requests contain a token that another site's page cannot know. Sign-in attempts are limited before the password is
checked, so that neither the time nor the text of a denial depends on it.
"""

from __future__ import annotations

import math
import secrets
import time

from flask import Flask, Response, make_response, redirect, render_template, request, url_for

from viewer.security.authenticator import DEVICE_RETENTION_S, SESSION_DURATION_S, Authenticator, Session, session_of
from viewer.security.login_throttle import LoginThrottle
from viewer.security.middleware import cookie_name, cookie_value, is_https
from viewer.security.rejection_log import RejectionLog, connection_address
from viewer.security.wanted_page import wanted_page

WRONG = "Wrong password."
OLD = "This page was too old, or cookies are blocked. Try again."


def add_login(app: Flask, authenticator: Authenticator, rejections: RejectionLog) -> None:
    """Add the routes for signing in and out."""
    throttle = LoginThrottle(time.monotonic())

    @app.get("/login")
    def login() -> Response:
        return redirect_to_page() if session_of(request.environ) else login_form(authenticator)

    @app.post("/login")
    def sign_in() -> Response:
        if not authenticator.has_login:
            return redirect_to_page()
        if not authenticator.is_token(request.form.get("token", ""), cookie_value(request.environ, "form") or ""):
            rejections.log(request.environ, "sign-in with a forged token, or none")
            return login_form(authenticator, OLD, 403)
        client = connection_address(request.environ), authenticator.device(cookie_value(request.environ, "device"))
        if wait_s := math.ceil(throttle.begin(*client, time.monotonic())):
            rejections.log(request.environ, "sign-in, too many wrong passwords before")
            return login_form(authenticator, f"Too many attempts. Try again in {wait_s} s.", 429, wait_s)
        if not authenticator.is_password(request.form.get("password", "")):
            rejections.log(request.environ, "sign-in with a wrong password")
            return login_form(authenticator, WRONG, 401)
        throttle.succeeded(*client)
        answer = set_cookie(redirect_to_page(), "session", authenticator.new_cookie(), int(SESSION_DURATION_S))
        return set_cookie(answer, "device", authenticator.new_device(), int(DEVICE_RETENTION_S))

    @app.post("/logout")
    def sign_out() -> Response:
        session = session_of(request.environ)
        if session is None or not authenticator.has_login:
            return redirect_to_page()
        if not authenticator.is_token(request.form.get("token", ""), session.id):
            rejections.log(request.environ, "sign-out with a forged token, or none")
            return Response("this page was too old; load it again\n", 403, mimetype="text/plain")
        authenticator.end(session)
        return set_cookie(make_response(redirect(url_for("login"), 303)), "session", "", 0)

    @app.get("/api/session")
    def session() -> Response:
        return Response(status=204)  # SecurityMiddleware has checked; a page asks when its WebSocket is rejected


def sign_out_token(authenticator: Authenticator, session: Session | None) -> str | None:
    """Return the token for the page's sign-out form; None without a login."""
    return authenticator.token(session.id) if session and authenticator.has_login else None


def login_form(authenticator: Authenticator, message: str = "", status: int = 200, wait_s: int = 0) -> Response:
    """Return the sign-in page, with the cookie that its token belongs to."""
    known = cookie_value(request.environ, "form") or secrets.token_urlsafe(16)
    action = url_for("sign_in", next=request.args.get("next"))
    page = render_template("login.html", token=authenticator.token(known), message=message, action=action)
    answer = make_response(page, status)
    if wait_s:
        answer.headers["Retry-After"] = str(wait_s)
    return set_cookie(answer, "form", known, None)


def redirect_to_page() -> Response:
    """Redirect a browser to the page that it wanted, or to the first one."""
    return make_response(redirect(request.script_root + wanted_page(request.args.get("next", "")), 303))


def set_cookie(answer: Response, purpose: str, value: str, max_age_s: int | None) -> Response:
    """Set a cookie that scripts cannot read. max_age_s: None until the browser is closed.

    Lax, not Strict: a link in a chat or a dashboard should open the page signed in, and no GET changes anything.
    """
    answer.set_cookie(
        cookie_name(request.environ, purpose),
        value,
        max_age=max_age_s,
        secure=is_https(request.environ),
        httponly=True,
        path=request.script_root or "/",
        samesite="Lax",
    )
    return answer
