"""What the routes of the chat and of logins take and answer, for the OpenAPI document."""

from __future__ import annotations

from .chat_models import (
    CancelledAnswer,
    ChatAnswer,
    ConfirmedAnswer,
    LoggedIn,
    LoginRequest,
    MessageRequest,
    QueuedAnswer,
    ThreadRequest,
)
from .error_models import ChatError
from .operations import Answer, Operation, Parameter

_NO_THREAD = Answer("There is no such thread for this caller.", ChatError)
_NOTHING = Answer("Nothing of this thread waits for an answer: no_pending_action.", ChatError)
_CONFLICT = Answer("The thread is busy, or the project's workflow cannot be run.", ChatError)
_THREAD = {"thread_id": "550e8400-e29b-41d4-a716-446655440000"}

OPERATIONS = (
    Operation(
        method="post",
        path="/auth/login",
        id="login",
        summary="Exchange a key for a cookie",
        tag="login",
        request=LoginRequest,
        example={"key": "bilt_live_…"},
        answers={200: Answer("Logged in.", LoggedIn, headers=("Set-Cookie",))},
        credential=None,
    ),
    Operation(
        method="post",
        path="/auth/logout",
        id="logout",
        summary="End the login",
        tag="login",
        answers={204: Answer("Logged out.", headers=("Set-Cookie",))},
        credential="cookie",
    ),
    Operation(
        method="get",
        path="/auth/session",
        id="getLogin",
        summary="Who is logged in",
        tag="login",
        answers={200: Answer("The caller.", LoggedIn)},
        credential="cookie",
    ),
    Operation(
        method="post",
        path="/chat",
        id="chat",
        summary="Have something done, and hear what becomes of it",
        tag="chat",
        request=MessageRequest,
        example={"user_message": "Build it and deploy."},
        answers={
            200: Answer("It is over, waits for an answer, or has taken 300 s.", ChatAnswer),
            404: _NO_THREAD,
            409: _CONFLICT,
        },
        credential="cookie",
    ),
    Operation(
        method="post",
        path="/chat/message",
        id="queueMessage",
        summary="Have something done, and follow it on /chat/stream",
        tag="chat",
        request=MessageRequest,
        example={"user_message": "Build it and deploy."},
        answers={200: Answer("Accepted.", QueuedAnswer), 404: _NO_THREAD, 409: _CONFLICT},
        credential="cookie",
    ),
    Operation(
        method="get",
        path="/chat/stream",
        id="followThread",
        summary="What happens in a thread, as server-sent events",
        tag="chat",
        parameters=(
            Parameter("thread_id", {"type": "string"}, "The thread.", required=True),
            Parameter(
                "last_event_id",
                {"type": "string"},
                "Go on behind this event. A browser says it by the header Last-Event-ID.",
            ),
            Parameter(
                "from",
                {"type": "string", "enum": ["start", "now"], "default": "start"},
                "Without an event's id: the newest workflow from its beginning, or what comes.",
            ),
        ),
        answers={
            200: Answer(
                "node_start, node_end, token, confirmation_required, error; complete is the last.",
                media="text/event-stream",
            ),
            204: Answer("The event named was the last: there is nothing to come back for."),
            404: _NO_THREAD,
        },
        credential="cookie",
    ),
    Operation(
        method="post",
        path="/chat/confirm",
        id="confirmAction",
        summary="Say yes to the step that waits",
        tag="chat",
        request=ThreadRequest,
        example=_THREAD,
        answers={
            200: Answer("Said, and what has become of it by then.", ConfirmedAnswer),
            404: _NOTHING,
        },
        credential="cookie",
    ),
    Operation(
        method="post",
        path="/chat/cancel",
        id="cancelAction",
        summary="Say no to the step that waits",
        tag="chat",
        request=ThreadRequest,
        example=_THREAD,
        answers={200: Answer("Said, and done.", CancelledAnswer), 404: _NOTHING},
        credential="cookie",
    ),
)
