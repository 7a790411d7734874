// A receiver in Go. It verifies a request, stores its event once, and answers.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/rowhook/rowhook/webhook"
)

type event struct {
	ID      string
	Trigger struct{ Name string }
	Event   struct {
		Op   string
		Data struct{ Old, New json.RawMessage }
	}
}

// seen stands for a table with a unique id, written in the transaction that does the work.
var seen sync.Map

func receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := webhook.Verify(os.Getenv("ORDERS_SECRET"), r.Header, body, time.Now()); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	var e event
	if err := json.Unmarshal(body, &e); err != nil || e.ID == "" {
		http.Error(w, "this is no event", http.StatusBadRequest)
		return
	}
	if _, again := seen.LoadOrStore(e.ID, true); !again {
		log.Printf("%s %s %s", e.Trigger.Name, e.Event.Op, e.Event.Data.New)
	}
	w.WriteHeader(http.StatusNoContent)
}

func main() {
	if os.Getenv("ORDERS_SECRET") == "" {
		log.Fatal("ORDERS_SECRET is not set")
	}
	server := &http.Server{
		Addr:              cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:3000"),
		Handler:           http.HandlerFunc(receive),
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(l net.Listener) context.Context {
			log.Print("listening on ", l.Addr())
			return context.Background()
		},
	}
	log.Fatal(server.ListenAndServe())
}
