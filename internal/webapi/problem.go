// Package webapi has what the HTTP interfaces share: errors as problem details, JSON bodies, the
// check against requests of web pages, and the description as an OpenAPI document.
package webapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
)

// Problem is an error in the form of RFC 9457. Its type is about:blank, so its title is the text of
// the status. Programs tell problems apart by code.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
	// Explanation is Detail and Remedy as lines to print. A test's helper prints it for every
	// problem, whatever else the problem has.
	Explanation string `json:"explanation"`

	header http.Header
}

func (p *Problem) Error() string { return p.Detail }

// NewProblem returns a problem. remedy may be empty.
func NewProblem(status int, code, detail, remedy string) *Problem {
	return &Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Remedy: remedy,
		Explanation: Explain(detail, remedy), header: http.Header{},
	}
}

// Explain returns a text and what to do about it, if anything, in lines.
func Explain(detail, remedy string) string {
	if remedy == "" {
		return detail
	}
	return detail + "\n" + remedy
}

// With adds a header to the response.
func (p *Problem) With(name, value string) *Problem {
	p.header.Set(name, value)
	return p
}

// ProblemType is the media type of problems.
const ProblemType = "application/problem+json"

// Write responds with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	_ = WriteJSON(w, p.Status, ProblemType, p) // texts can always be encoded
}

// WriteJSON sends v as JSON. It returns an error, and sends nothing, if v can't be encoded. It
// ignores the error of a client that is gone.
func WriteJSON(w http.ResponseWriter, status int, contentType string, v any) error {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode the response: %w", err)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
	return nil
}
