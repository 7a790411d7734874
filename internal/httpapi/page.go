package httpapi

import (
	"net/http"

	"github.com/rowhook/rowhook/internal/dashboard"
)

// servePage serves the dashboard's page and files. They show no data: the page asks for those by
// routes of the interface. So a link on any site may lead here, and no token is needed. It reports
// whether the request was for one of them.
func (s *Server) servePage(w http.ResponseWriter, r *http.Request) bool {
	if !dashboard.Owns(r.URL.Path) || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if p := s.guard.checkHost(r); p != nil {
		p.Write(w)
		return true
	}
	s.page().ServeHTTP(w, r)
	return true
}
