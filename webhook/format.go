package webhook

import (
	"net/http"

	"github.com/rowhook/rowhook/internal/template"
)

// bodyTemplate is the format of an endpoint with a template.
type bodyTemplate struct{ body *template.Body }

func (f bodyTemplate) appendBody(dst []byte, _ *Event, v *template.Values) []byte {
	return f.body.Append(dst, v)
}

func (bodyTemplate) contentType(bool) string    { return jsonType }
func (bodyTemplate) header(http.Header, *Event) {}
func (bodyTemplate) size(e *Event) int          { return e.size() }

const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"
)

// formTemplate is the format of an endpoint with chosen fields of a form.
type formTemplate struct{ fields *template.Text }

func (f formTemplate) appendBody(dst []byte, _ *Event, v *template.Values) []byte {
	return f.fields.Append(dst, v)
}

func (formTemplate) contentType(bool) string    { return formType }
func (formTemplate) header(http.Header, *Event) {}
func (formTemplate) size(e *Event) int          { return e.size() }

// rowForm is the format of an endpoint with the columns of the row as a form: of new, or of old for a
// delete.
type rowForm struct{}

func (rowForm) appendBody(dst []byte, e *Event, _ *template.Values) []byte {
	row := e.New
	if e.Op == 'D' {
		row = e.Old
	}
	return template.AppendForm(dst, row)
}

func (rowForm) contentType(bool) string    { return formType }
func (rowForm) header(http.Header, *Event) {}
func (rowForm) size(e *Event) int          { return e.size() }

// bodiless is the format of an endpoint whose requests have no body.
type bodiless struct{}

func (bodiless) appendBody(dst []byte, _ *Event, _ *template.Values) []byte { return dst }
func (bodiless) contentType(bool) string                                    { return "" }
func (bodiless) header(http.Header, *Event)                                 {}
func (bodiless) size(*Event) int                                            { return 0 }
