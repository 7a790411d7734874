package httpapi

import (
	"net/http"

	"github.com/rowhook/rowhook/internal/operate"
)

// activity responds with what was done in each of the last minutes.
func (s *Server) activity(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	q := r.URL.Query()
	minutes, err := number(q, "minutes", 1, operate.MaxMinutes)
	if err != nil {
		return 0, nil, err
	}
	a, err := operate.ReadActivity(r.Context(), s.cfg.DB, operate.ActivityOptions{Triggers: several(q, "trigger"), Minutes: minutes})
	return http.StatusOK, a, err
}
