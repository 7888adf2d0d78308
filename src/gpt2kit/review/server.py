"""The page of a review over HTTP.

What keeps it safe. It serves on this machine only, unless a key is set. The `Host` of a request must be this server's
name, so that a page elsewhere cannot reach it under a name of its own (DNS rebinding). A form counts only with a token
that pages elsewhere cannot read, and from this origin (CSRF). There are no CORS headers, nothing is loaded from
elsewhere, and whose texts are shown is nowhere in a page before the person has finished.
"""

import base64
import hashlib
import hmac
import ipaddress
import math
import secrets
import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2kit.comparison.scale import Dot, Scale
from gpt2kit.console import say
from gpt2kit.errors import UsageError
from gpt2kit.review.results import Results, counted, results
from gpt2kit.review.session import LONGEST_NAME, Session, rater_name
from gpt2kit.review.settings import ReviewSettings
from gpt2kit.review.store import CHOICES
from gpt2kit.review.tables import EXPLANATION, MATCH_HEADERS, match_cells, place_rows, seconds_text

_COOKIE = "gpt2kit_review"
_COOKIE_SECONDS = 30 * 24 * 3600
_MOST_FORM_BYTES = 10_000
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def serve(session: Session, settings: ReviewSettings) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UsageError: the address cannot be served on.
    """
    listening = _listen(settings.host, settings.port)
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        make_app(session, settings),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"review: http://{shown}:{port}/ (Ctrl-C ends it)")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        say("the review is closed; the same command goes on with it")
    finally:
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen()
        except BaseException:
            listening.close()
            raise
        return listening
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port}: cannot be served on ({error.strerror}); choose another --port, or 0 for a "
            "free one"
        ) from error


def make_app(session: Session, settings: ReviewSettings) -> ASGIApp:
    """The application: pages of a session."""
    pages = _Pages(session, settings)
    app = Starlette(
        routes=[
            Route("/", pages.home, methods=["GET"]),
            Route("/enter", pages.enter, methods=["POST"]),
            Route("/judge", pages.judge, methods=["POST"]),
            Route("/undo", pages.undo, methods=["POST"]),
            Route("/stop", pages.stop, methods=["GET"]),
            Route("/finish", pages.finish, methods=["POST"]),
            Route("/leave", pages.leave, methods=["POST"]),
            # An address that a form was sent to stays in the browser when no answer came, and is then asked for.
            *(Route(path, pages.back, methods=["GET"]) for path in ("/enter", "/judge", "/undo", "/finish", "/leave")),
        ]
    )
    return _Guard(
        app,
        known_hosts=(*_LOCAL_NAMES, settings.host.lower()),
        is_open=not settings.is_local,
        public_url=settings.public_url,
    )


class _Guard:
    """Refuses requests under other names and forms from other pages, and says to the browser what a page may do."""

    def __init__(self, app: ASGIApp, *, known_hosts: tuple[str, ...], is_open: bool, public_url: str | None) -> None:
        self._app = app
        self._known_hosts = known_hosts
        self._is_open = is_open
        self._public = None if public_url is None else urlsplit(public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        nonce = secrets.token_urlsafe(16)
        scope["state"] = {"nonce": nonce}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_security_headers(nonce)]
            await send(message)

        problem = self._problem(request)
        if problem is not None:
            await PlainTextResponse(problem, status_code=403)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _problem(self, request: Request) -> str | None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            return "This server is not known under that name."
        if request.method in ("GET", "HEAD"):
            return None
        origin = request.headers.get("origin")
        if origin is not None and not self._is_own(origin, host=hosts[0]):
            return "This form was sent from another page."
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "This form was sent from another page."
        return None

    def _is_own(self, origin: str, *, host: str) -> bool:
        """Whether a page under this address is one of ours: as it was asked for, or as a proxy before us is known."""
        found = urlsplit(origin)
        if self._public is not None and (found.scheme, found.netloc) == (self._public.scheme, self._public.netloc):
            return True
        return (found.scheme, found.netloc) == ("http", host)

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._known_hosts or (self._public is not None and name == self._public.hostname):
            return True
        if not self._is_open:
            return False
        if name == socket.gethostname().lower():
            return True
        try:  # an address is no name that somebody could point here
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _security_headers(nonce: str) -> list[tuple[bytes, bytes]]:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cache-control": "no-store",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
    return [(name.encode(), value.encode()) for name, value in headers.items()]


class _Pages:
    """What is answered to each address."""

    def __init__(self, session: Session, settings: ReviewSettings) -> None:
        self._session = session
        self._key = settings.key
        self._is_encrypted = (settings.public_url or "").startswith("https:")
        # A new key asks everybody again.
        self._secret = hmac.digest(session.store.secret, (settings.key or "").encode(), "sha256")
        self._templates = Environment(
            loader=PackageLoader("gpt2kit.review", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def home(self, request: Request) -> Response:
        """The name form, the next pair, the end, or the results: whatever comes next for this person."""
        rater = self._rater(request)
        if rater is None:
            return self._page(request, "enter.html", rater="", problem="", with_key=self._key is not None)
        if self._session.store.has_finished(rater):
            return self._results(request, rater)
        done, number = self._session.progress(rater)
        turn = self._session.next_turn(rater)
        if turn is None:
            return self._page(request, "end.html", rater=rater, done=done, number=number)
        return self._page(request, "judge.html", rater=rater, turn=turn, done=done, number=number)

    async def enter(self, request: Request) -> Response:
        """A person comes: name and key."""
        form = await _form(request)
        if self._key is not None and not hmac.compare_digest(form.get("key", "").encode(), self._key.encode()):
            return self._refused(request, "The key is not right.")
        if not self._token_fits(form, ""):
            return self._refused(request, "This page had expired; please try again.")
        try:
            rater = rater_name(form.get("name", ""))
        except UsageError as error:
            return self._refused(request, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        self._session.store.begin(rater)
        response = _back_home()
        response.set_cookie(
            _COOKIE,
            self._signed(rater),
            max_age=_COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            path="/",
            secure=self._is_encrypted,
        )
        return response

    async def judge(self, request: Request) -> Response:
        """An answer; the same one sent twice counts once."""
        rater, form = await self._checked(request)
        choice = next((each for each in CHOICES if each == form.get("choice")), None)
        position = form.get("position", "")
        if rater is None or choice is None or not (position.isascii() and position.isdigit() and len(position) < 9):
            return _bad_request()
        try:
            self._session.judge(rater, int(position), choice, seconds=_seconds(form.get("seconds", "")))
        except UsageError:
            return _bad_request()
        return _back_home()

    async def undo(self, request: Request) -> Response:
        """The last answer is taken back."""
        rater, _ = await self._checked(request)
        if rater is None:
            return _bad_request()
        self._session.undo(rater)
        return _back_home()

    async def stop(self, request: Request) -> Response:
        """Whether the person really wants to see the results before the end."""
        rater = self._rater(request)
        if rater is None or self._session.next_turn(rater) is None:
            return _back_home()
        done, number = self._session.progress(rater)
        return self._page(request, "stop.html", rater=rater, done=done, number=number)

    async def back(self, request: Request) -> Response:  # noqa: ARG002
        """To whatever comes next."""
        return _back_home()

    async def finish(self, request: Request) -> Response:
        """The person judges no more, and sees the results."""
        rater, _ = await self._checked(request)
        if rater is None:
            return _bad_request()
        self._session.store.finish(rater)
        return _back_home()

    async def leave(self, request: Request) -> Response:
        """Somebody else sits down at this browser."""
        rater, _ = await self._checked(request)
        response = _back_home() if rater is not None else _bad_request()
        response.delete_cookie(_COOKIE, path="/", httponly=True, samesite="strict")
        return response

    def _results(self, request: Request, rater: str) -> Response:
        store = self._session.store
        found = results(store.pairs(), store.judgements())
        return self._page(
            request,
            "results.html",
            rater=rater,
            found=found,
            counted=counted,
            statements=found.statements(),
            places=list(zip(place_rows(found), _dots(found), strict=True)),
            matches=[match_cells(match) for match in found.matches],
            headers=MATCH_HEADERS,
            explanation=EXPLANATION,
            raters=[
                [each.name, each.num_judgements, each.num_skipped, seconds_text(each.median_seconds)]
                for each in found.raters
            ],
        )

    def _page(self, request: Request, template: str, *, rater: str, status: int = 200, **values: Any) -> HTMLResponse:
        text = self._templates.get_template(template).render(
            values, rater=rater, token=self._token(rater), nonce=request.state.nonce, longest_name=LONGEST_NAME
        )
        return HTMLResponse(text, status_code=status)

    def _refused(self, request: Request, problem: str) -> Response:
        return self._page(request, "enter.html", rater="", status=403, problem=problem, with_key=self._key is not None)

    async def _checked(self, request: Request) -> tuple[str | None, dict[str, str]]:
        """Who sent a form, and what it says; nobody when it is not one of ours."""
        rater, form = self._rater(request), await _form(request)
        if rater is None or not self._token_fits(form, rater):
            return None, form
        return rater, form

    def _rater(self, request: Request) -> str | None:
        """Whose browser it is, by the signed cookie."""
        name, _, signature = request.cookies.get(_COOKIE, "").partition(".")
        try:
            rater = base64.urlsafe_b64decode(name.encode()).decode()
        except ValueError:
            return None
        if not rater or not hmac.compare_digest(signature.encode(), self._sign("rater", rater).encode()):
            return None
        return rater

    def _signed(self, rater: str) -> str:
        return f"{base64.urlsafe_b64encode(rater.encode()).decode()}.{self._sign('rater', rater)}"

    def _token(self, rater: str) -> str:
        return self._sign("form", rater)

    def _token_fits(self, form: dict[str, str], rater: str) -> bool:
        return hmac.compare_digest(form.get("token", "").encode(), self._token(rater).encode())

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret, f"{purpose}\x1f{text}".encode(), hashlib.sha256).hexdigest()


def _dots(found: Results) -> list[Dot | None]:
    """Where the strengths stand on a common line; None for those that cannot be told."""
    figures = [place.strength for place in found.places if place.strength is not None]
    if not figures:
        return [None] * len(found.places)
    scale = Scale(figures, with_zero=True)
    return [None if place.strength is None else scale.dot(place.strength) for place in found.places]


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form; nothing of one that is too long or is none."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_FORM_BYTES:
            return {}
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _back_home() -> Response:
    return RedirectResponse("/", status_code=303)


def _bad_request() -> Response:
    return PlainTextResponse("This form cannot be used; go back to the page and load it again.", status_code=400)
