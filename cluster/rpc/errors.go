package rpc

import (
	"errors"
	"fmt"
)

var (
	// ErrUnreachable is wrapped when the peer has not got the request: there was
	// no connection to it.
	ErrUnreachable = errors.New("node is unreachable")
	// ErrLost is wrapped when the connection ended before the response came: the
	// peer may have got the request or not.
	ErrLost = errors.New("connection was lost before the answer")
	// ErrClosed is wrapped by calls after [Client.Close].
	ErrClosed = errors.New("client is closed")
)

// Codes that this package itself gives to errors.
const (
	// CodeInternal is the code of an error that was none of type [Error].
	CodeInternal = "internal"
	// CodeUnknownMethod says that the peer knows no such method: it runs another
	// version of the program, or is not that far yet.
	CodeUnknownMethod = "unknown-method"
	// CodeBadRequest says that the peer could not read the request.
	CodeBadRequest = "bad-request"
)

// Error is an error that the peer has answered. A method returns one to choose
// the code by which the caller can branch.
type Error struct {
	Code    string // at most 255 bytes
	Message string
}

// Error returns the message.
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Message
}

// Errorf makes an [Error].
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Code returns the code of the [Error] that err wraps, or "" if it wraps none.
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
