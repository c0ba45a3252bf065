package main

import (
	"context"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
)

func attribute(key, value string) *protobufs.KeyValue {
	return &protobufs.KeyValue{
		Key:   key,
		Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: value}},
	}
}

// An agent of `url`, which comes by `token` if that is not empty, under the name `uid`. It applies every configuration but those with
// "bad" in them. Lines: `unhealthy`, `stop`.
func manage(url, token string, uid types.InstanceUid) func(line string) {
	var agent client.OpAMPClient
	if strings.HasPrefix(url, "ws") {
		agent = client.NewWebSocket(nil)
	} else {
		agent = client.NewHTTP(nil)
	}
	var mutex sync.Mutex
	running := "rate: 99"
	effective := func(context.Context) (*protobufs.EffectiveConfig, error) {
		mutex.Lock()
		defer mutex.Unlock()
		config := map[string]*protobufs.AgentConfigFile{"": {Body: []byte(running), ContentType: "text/yaml"}}
		return &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: config}}, nil
	}
	onMessage := func(ctx context.Context, message *types.MessageData) {
		if message.AgentIdentification != nil {
			tell("identity", message.AgentIdentification.NewInstanceUid)
		}
		if message.CustomMessage != nil {
			tell("custom", message.CustomMessage.Type)
		}
		if message.RemoteConfig == nil {
			return
		}
		body := string(message.RemoteConfig.Config.GetConfigMap()[""].GetBody())
		tell("config", body)
		status := &protobufs.RemoteConfigStatus{
			LastRemoteConfigHash: message.RemoteConfig.ConfigHash,
			Status:               protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED,
		}
		if strings.Contains(body, "bad") {
			status.Status = protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED
			status.ErrorMessage = "it is bad"
		} else {
			mutex.Lock()
			running = body
			mutex.Unlock()
			if err := agent.UpdateEffectiveConfig(ctx); err != nil {
				log.Fatal(err)
			}
		}
		if err := agent.SetRemoteConfigStatus(status); err != nil {
			log.Fatal(err)
		}
	}
	description := &protobufs.AgentDescription{
		IdentifyingAttributes:    []*protobufs.KeyValue{attribute("service.name", "opamp-go")},
		NonIdentifyingAttributes: []*protobufs.KeyValue{attribute("os.type", "linux")},
	}
	if err := agent.SetAgentDescription(description); err != nil {
		log.Fatal(err)
	}
	if err := agent.SetHealth(&protobufs.ComponentHealth{Healthy: true, Status: "well"}); err != nil {
		log.Fatal(err)
	}
	capabilities := protobufs.AgentCapabilities(0x1 | 0x2 | 0x4 | 0x400 | 0x800 | 0x1000 | 0x2000)
	if err := agent.SetCapabilities(&capabilities); err != nil {
		log.Fatal(err)
	}
	if err := agent.SetCustomCapabilities(&protobufs.CustomCapabilities{Capabilities: []string{"com.example.a"}}); err != nil {
		log.Fatal(err)
	}
	interval := time.Second
	settings := types.StartSettings{
		OpAMPServerURL:    url,
		InstanceUid:       uid,
		HeartbeatInterval: &interval,
		EnableCompression: true,
		Callbacks: types.Callbacks{
			OnConnect:          func(context.Context) { tell("connected", true) },
			OnConnectFailed:    func(_ context.Context, err error) { tell("failed", err.Error()) },
			OnError:            func(_ context.Context, err *protobufs.ServerErrorResponse) { tell("error", err.ErrorMessage) },
			OnMessage:          onMessage,
			GetEffectiveConfig: effective,
			OnCommand: func(_ context.Context, command *protobufs.ServerToAgentCommand) error {
				tell("command", command.Type.String())
				return nil
			},
		},
	}
	if token != "" {
		settings.Header = http.Header{"Authorization": {"Bearer " + token}}
	}
	if err := agent.Start(context.Background(), settings); err != nil {
		log.Fatal(err)
	}
	return func(line string) {
		switch line {
		case "unhealthy":
			if err := agent.SetHealth(&protobufs.ComponentHealth{LastError: "the disk is full"}); err != nil {
				log.Fatal(err)
			}
		case "stop":
			if err := agent.Stop(context.Background()); err != nil {
				log.Fatal(err)
			}
			tell("stopped", true)
		}
	}
}
