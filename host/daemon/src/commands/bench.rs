//! What came of single events, for people.

use serde_json::Value;

use crate::output;

/// Prints what came of an event.
pub(super) fn print(name: &str, result: &Value) -> std::io::Result<()> {
    let word = |field: &str| result[field].as_str().unwrap_or_default();
    let reason = output::visible(word("reason"));
    let name = output::in_one_line(name);
    output::line(format_args!("{name}  {}  {} µs  {reason}", word("outcome"), result["micros"]))?;
    details(result)
}

/// Prints what an event made the handler say and ask for.
pub(super) fn details(result: &Value) -> std::io::Result<()> {
    for log in result["logs"].as_array().into_iter().flatten() {
        output::line(format_args!("    log    {}", output::visible(log.as_str().unwrap_or_default())))?;
    }
    for emit in result["emitted"].as_array().into_iter().flatten() {
        let payload = if emit["payload_base64"].is_string() { &emit["payload_base64"] } else { &emit["payload"] };
        let (stream, kind) = (emit["stream"].as_str().unwrap_or_default(), emit["kind"].as_str().unwrap_or_default());
        let payload = payload.to_string();
        let [kind, payload] = [kind, &payload].map(output::in_one_line);
        output::line(format_args!("    emit   {stream}  {kind}  {payload}"))?;
    }
    for (key, value) in result["state"].as_object().into_iter().flatten() {
        let value = value.to_string();
        let [key, value] = [key, &value].map(|text| output::in_one_line(text));
        output::line(format_args!("    state  {key} = {value}"))?;
    }
    Ok(())
}
