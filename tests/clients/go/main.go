// Asks a features service what it is told on its standard input, through Feast's own Go SDK, and prints the answer as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	feast "github.com/feast-dev/feast/sdk/go"
	"github.com/feast-dev/feast/sdk/go/protos/feast/serving"
	"github.com/feast-dev/feast/sdk/go/protos/feast/types"
	"google.golang.org/grpc/metadata"
)

type question struct {
	Port     int                 `json:"port"`
	Project  string              `json:"project"`
	AsOf     string              `json:"as_of"`
	Features []string            `json:"features"`
	Rows     []map[string]string `json:"rows"`
}

type answer struct {
	Version  string              `json:"version"`
	Values   []map[string]any    `json:"values"`
	Statuses []map[string]string `json:"statuses"`
	Error    string              `json:"error,omitempty"`
}

func main() {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	said, err := ask(asked)
	if err != nil {
		said.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func ask(asked question) (answer, error) {
	var said answer
	client, err := feast.NewGrpcClient("127.0.0.1", asked.Port)
	if err != nil {
		return said, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	info, err := client.GetFeastServingInfo(ctx, &serving.GetFeastServingInfoRequest{})
	if err != nil {
		return said, err
	}
	said.Version = info.Version
	if asked.AsOf != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "as_of", asked.AsOf)
	}
	request := feast.OnlineFeaturesRequest{Features: asked.Features, Project: asked.Project}
	for _, row := range asked.Rows {
		entities := feast.Row{}
		for name, key := range row {
			entities[name] = feast.StrVal(key)
		}
		request.Entities = append(request.Entities, entities)
	}
	found, err := client.GetOnlineFeatures(ctx, &request)
	if err != nil {
		return said, err
	}
	statuses := found.Statuses()
	for number, row := range found.Rows() {
		values, states := map[string]any{}, map[string]string{}
		for name, value := range row {
			values[name] = plain(value)
			states[name] = statuses[number][name].String()
		}
		said.Values, said.Statuses = append(said.Values, values), append(said.Statuses, states)
	}
	return said, nil
}

func plain(value *types.Value) any {
	switch one := value.GetVal().(type) {
	case nil:
		return nil
	case *types.Value_DoubleVal:
		return one.DoubleVal
	case *types.Value_Int64Val:
		return one.Int64Val
	case *types.Value_StringVal:
		return one.StringVal
	default:
		return fmt.Sprintf("a value of type %T", one)
	}
}
