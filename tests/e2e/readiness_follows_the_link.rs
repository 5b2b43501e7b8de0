//! The agent is ready while it is linked and only then; its status says the same, and without an agent there is none.

use lab::{Options, http_get, wait_for, with_lab};
use std::time::Duration;

const AGENT: u16 = 9641;
const SERVER: u16 = 9642;
const SOON: Duration = Duration::from_mins(1);

#[test]
fn claim() {
    let options = Options::default()
        .agent("metrics.listen", "127.0.0.1:9641")
        .nuauth("metrics.listen", "127.0.0.1:9642");
    with_lab(options, |lab| {
        let gateway = lab.net.gateway.clone();
        let is = |wanted: u16| {
            let gateway = gateway.clone();
            move || Ok(http_get(&gateway, AGENT, "/ready")?.0 == wanted)
        };
        wait_for("the agent to be ready", SOON, is(200))?;
        let (status, body) = http_get(&gateway, SERVER, "/ready")?;
        assert_eq!(status, 200, "{body}");
        assert!(body.contains("1 of 1 gateways are connected"), "{body}");
        assert_eq!(http_get(&gateway, SERVER, "/health")?.0, 200);

        lab.server.kill()?;
        wait_for("the agent not to be ready", SOON, is(503))?;
        let (_, body) = http_get(&gateway, AGENT, "/ready")?;
        assert!(body.contains("\"name\":\"link\",\"ok\":false"), "{body}");
        assert!(body.contains("\"name\":\"queue\",\"ok\":true"), "{body}");
        assert_eq!(
            http_get(&gateway, AGENT, "/health")?.0,
            200,
            "it lives all the same"
        );
        let status = lab.agent_command().args(["status", "--json"]).output()?;
        assert!(status.status.success(), "{status:?}");
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
        assert!(
            status["link_for"].is_null() && status["seen"]["links"] == 1,
            "{status:#}"
        );

        let asked = lab.server_command().arg("status").output()?;
        assert_eq!(asked.status.code(), Some(69), "{asked:?}");
        lab.start_server()?;
        wait_for("the agent to be ready again", SOON, is(200))?;
        let shown = lab.server_command().arg("status").output()?;
        assert!(
            String::from_utf8_lossy(&shown.stdout).contains("gateways connected       gw1"),
            "{shown:?}"
        );
        let shown = lab.agent_command().arg("status").output()?;
        let text = String::from_utf8_lossy(&shown.stdout);
        for part in [
            "queue 0:",
            "packets:",
            "events:",
            "link:",
            "connection table:",
            "marks:",
            " granted",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }

        lab.agent.terminate()?;
        assert!(!lab.dir().join("agent.sock").exists());
        let none = lab.agent_command().arg("status").output()?;
        assert_eq!(none.status.code(), Some(69), "{none:?}");
        assert!(
            String::from_utf8_lossy(&none.stderr).contains("no agent runs here"),
            "{none:?}"
        );
        Ok(())
    });
}
