//! Calls for statistics and metrics.

use super::Client;
use super::calls::{about, answer, asking, request};
use super::features::Optional;
use crate::convert::{stats, to};
use crate::error::Error;
use crate::pb;
use crate::types::{
    ContainerStats, ContainerStatsFilter, MetricDescriptor, PodSandboxMetrics, PodSandboxStats, SandboxStatsFilter,
};

impl Client {
    pub async fn container_stats(&self, id: &str) -> Result<ContainerStats, Error> {
        const METHOD: &str = "ContainerStats";
        let message = pb::ContainerStatsRequest { container_id: request(METHOD, to::id("container_id", id))? };
        let service = self.runtime();
        let reply = self.query(about(METHOD, id), asking!(service, message, container_stats)).await?;
        answer(METHOD, stats::container_stats_reply(reply))
    }

    pub async fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>, Error> {
        const METHOD: &str = "ListContainerStats";
        let filter = Some(to::container_stats_filter(filter));
        let service = self.runtime();
        let streamed = {
            let message = pb::StreamContainerStatsRequest { filter: filter.clone() };
            let open = asking!(service, message, stream_container_stats);
            self.collect(Optional::StreamContainerStats, about("StreamContainerStats", ""), open, |part| part.container_stats)
                .await?
        };
        let items = match streamed {
            Some(items) => items,
            None => {
                let message = pb::ListContainerStatsRequest { filter };
                self.query(about(METHOD, ""), asking!(service, message, list_container_stats)).await?.stats
            }
        };
        answer(METHOD, stats::all_container_stats(items))
    }

    /// [`Error::Unimplemented`] from runtimes that only know containers: add those up, or read the cgroups.
    pub async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats, Error> {
        const METHOD: &str = "PodSandboxStats";
        let message = pb::PodSandboxStatsRequest { pod_sandbox_id: request(METHOD, to::id("pod_sandbox_id", id))? };
        let mut service = self.runtime();
        let reply = service.pod_sandbox_stats(message);
        let reply = self.optional(Optional::PodSandboxStats, about(METHOD, id), self.deadlines().query, reply).await?;
        answer(METHOD, stats::sandbox_stats_reply(reply))
    }

    /// [`Error::Unimplemented`] as for one.
    pub async fn list_pod_sandbox_stats(&self, filter: &SandboxStatsFilter) -> Result<Vec<PodSandboxStats>, Error> {
        const METHOD: &str = "ListPodSandboxStats";
        let filter = Some(to::sandbox_stats_filter(filter));
        let mut service = self.runtime();
        let streamed = {
            let message = pb::StreamPodSandboxStatsRequest { filter: filter.clone() };
            let open = asking!(service, message, stream_pod_sandbox_stats);
            self.collect(Optional::StreamPodSandboxStats, about("StreamPodSandboxStats", ""), open, |part| part.pod_sandbox_stats)
                .await?
        };
        let items = match streamed {
            Some(items) => items,
            None => {
                let reply = service.list_pod_sandbox_stats(pb::ListPodSandboxStatsRequest { filter });
                self.optional(Optional::ListPodSandboxStats, about(METHOD, ""), self.deadlines().query, reply).await?.stats
            }
        };
        answer(METHOD, stats::all_sandbox_stats(items))
    }

    /// What the metrics of [`Client::list_pod_sandbox_metrics`] mean, or [`Error::Unimplemented`].
    pub async fn list_metric_descriptors(&self) -> Result<Vec<MetricDescriptor>, Error> {
        const METHOD: &str = "ListMetricDescriptors";
        let mut service = self.runtime();
        let reply = service.list_metric_descriptors(pb::ListMetricDescriptorsRequest {});
        let reply = self.optional(Optional::ListMetricDescriptors, about(METHOD, ""), self.deadlines().query, reply).await?;
        Ok(stats::metric_descriptors(reply))
    }

    /// Ready-made metrics of all pods, or [`Error::Unimplemented`].
    pub async fn list_pod_sandbox_metrics(&self) -> Result<Vec<PodSandboxMetrics>, Error> {
        const METHOD: &str = "ListPodSandboxMetrics";
        let mut service = self.runtime();
        let streamed = {
            let message = pb::StreamPodSandboxMetricsRequest {};
            let open = asking!(service, message, stream_pod_sandbox_metrics);
            let part = |part: pb::StreamPodSandboxMetricsResponse| part.pod_sandbox_metrics;
            self.collect(Optional::StreamPodSandboxMetrics, about("StreamPodSandboxMetrics", ""), open, part).await?
        };
        let items = match streamed {
            Some(items) => items,
            None => {
                let reply = service.list_pod_sandbox_metrics(pb::ListPodSandboxMetricsRequest {});
                self.optional(Optional::ListPodSandboxMetrics, about(METHOD, ""), self.deadlines().query, reply)
                    .await?
                    .pod_metrics
            }
        };
        answer(METHOD, stats::sandbox_metrics(items))
    }
}
