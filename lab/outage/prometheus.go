package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// prometheus is a client of Prometheus.
type prometheus struct {
	url    string
	client http.Client
}

// alert is an active alert.
type alert struct {
	Labels      map[string]string
	Annotations map[string]string
	State       string // pending, firing
	ActiveAt    time.Time
}

func (a *alert) name() string { return a.Labels["alertname"] }

func (p *prometheus) alerts(ctx context.Context) ([]alert, error) {
	var data struct{ Alerts []alert }
	err := p.get(ctx, "alerts", nil, &data)
	return data.Alerts, err
}

// query returns the present values of an expression, without those that are NaN.
func (p *prometheus) query(ctx context.Context, expression string) ([]float64, error) {
	var data struct {
		Result []struct{ Value [2]any } // Unix time, and the value as a string
	}
	if err := p.get(ctx, "query", url.Values{"query": {expression}}, &data); err != nil {
		return nil, err
	}
	var values []float64
	for _, r := range data.Result {
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("parse the value %q of %s: %w", text, expression, err)
		}
		if !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	return values, nil
}

// labelValues returns the values of a label among the series of a metric.
func (p *prometheus) labelValues(ctx context.Context, metric, label string) ([]string, error) {
	var values []string
	err := p.get(ctx, "label/"+url.PathEscape(label)+"/values", url.Values{"match[]": {metric}}, &values)
	return values, err
}

func (p *prometheus) get(ctx context.Context, path string, query url.Values, data any) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/"+path+"?"+query.Encode(), nil)
	if err != nil {
		return fmt.Errorf("ask Prometheus: %w", err)
	}
	response, err := p.client.Do(r)
	if err != nil {
		return fmt.Errorf("ask Prometheus: %w", err)
	}
	defer response.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("read Prometheus' answer: %w", err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("ask Prometheus: %s", answer.Error)
	}
	return nil
}
